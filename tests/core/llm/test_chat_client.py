"""A model over real HTTP: what is asked, what comes back, what is tried again and what every failure tells to do."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import stamina
from tests.core.llm.endpoint import Reply, completion, failure, serve

from agentos.core.llm import ChatClient, Completion, client_from_settings
from agentos.store.canonical import canonical
from agentos.store.errors import ConfigInvalid, InvalidValue, LLMError, LLMUnavailable
from agentos.store.settings import Settings, load_settings

KEY = "sk-test-0123456789abcdefghij"
Ask = Callable[..., Completion]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Retries without their pauses."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks the endpoint through one of the two forms, which must not differ."""

    def ask_it(base_url: str, prompt: str = "Say hello.", *, api_key: str | None = KEY, **options: float) -> Completion:
        client = ChatClient(base_url, "asked-model", api_key, **options)  # type: ignore[arg-type]
        return client.complete(prompt) if request.param == "sync" else asyncio.run(client.acomplete(prompt))

    return ask_it


def test_a_completion_comes_back_with_its_text_model_tokens_and_reason(ask: Ask) -> None:
    with serve(completion("Hello.")) as endpoint:
        assert ask(endpoint.base_url) == Completion("Hello.", "served-model", 7, 3, "stop")
    ((path, headers, body),) = endpoint.requests
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {"model": "asked-model", "messages": [{"role": "user", "content": "Say hello."}]}


def test_model_and_system_of_a_call_are_sent() -> None:
    with serve(completion()) as endpoint:
        ChatClient(endpoint.base_url + "/", "m").complete("p", model="other", system="Be brief.")
    ((path, headers, body),) = endpoint.requests
    assert path == "/v1/chat/completions"
    assert "authorization" not in headers
    assert body["model"] == "other"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "p"}]


def test_what_the_endpoint_leaves_out_is_filled_in(ask: Ask) -> None:
    with serve(completion("x", reason=None, usage=None, model=None)) as endpoint:
        assert ask(endpoint.base_url) == Completion("x", "asked-model", 0, 0, "unknown")


def test_text_that_json_in_postgres_cannot_hold_is_made_storable(ask: Ask) -> None:
    with serve(completion("a\x00b\ud800c\U0001f600")) as endpoint:
        result = ask(endpoint.base_url)
    assert result.text == "a\ufffdb\ufffdc\U0001f600"
    assert canonical(result.as_dict())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
@pytest.mark.usefixtures("no_waiting")
def test_a_temporary_failure_is_tried_again(ask: Ask, status: int) -> None:
    with serve(failure(status), failure(status), completion("at last")) as endpoint:
        assert ask(endpoint.base_url).text == "at last"
    assert len(endpoint.requests) == 3


@pytest.mark.usefixtures("no_waiting")
def test_the_tries_are_bounded(ask: Ask) -> None:
    with (
        serve(failure(503, "overloaded")) as endpoint,
        pytest.raises(LLMUnavailable, match=r"503 Service Unavailable\nIt said: overloaded\nFix: "),
    ):
        ask(endpoint.base_url, attempts=3)
    assert len(endpoint.requests) == 3


def test_retry_after_is_waited_for_in_seconds(ask: Ask) -> None:
    with serve(failure(429, retry_after="0.3"), completion()) as endpoint:
        started = time.monotonic()
        ask(endpoint.base_url)
        assert time.monotonic() - started >= 0.3


def test_retry_after_may_be_a_date(ask: Ask) -> None:
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
    with serve(failure(429, retry_after=past), completion()) as endpoint:
        ask(endpoint.base_url)
    assert len(endpoint.requests) == 2


IN_TEN_MINUTES = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)


@pytest.mark.parametrize("when", ["600", IN_TEN_MINUTES], ids=["seconds", "date"])
def test_a_retry_after_that_is_too_long_is_not_waited_for(ask: Ask, when: str) -> None:
    with serve(failure(429, retry_after=when)) as endpoint, pytest.raises(LLMError, match=r"come back in \d+ s"):
        ask(endpoint.base_url)
    assert len(endpoint.requests) == 1


def test_a_used_up_quota_is_not_tried_again(ask: Ask) -> None:
    reply = failure(429, "You exceeded your current quota", code="insufficient_quota")
    with serve(reply) as endpoint, pytest.raises(LLMError, match="exceeded your current quota"):
        ask(endpoint.base_url)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(("status", "fix"), [(400, "AGENTOS_LLM_MODEL"), (404, "AGENTOS_LLM_MODEL"), (413, "shorter")])
def test_an_error_of_the_request_is_final_and_says_what_to_check(ask: Ask, status: int, fix: str) -> None:
    with serve(failure(status, "no such model")) as endpoint, pytest.raises(LLMError) as caught:
        ask(endpoint.base_url)
    assert len(endpoint.requests) == 1
    assert "no such model" in str(caught.value)
    assert fix in str(caught.value.hint)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable_and_never_the_key(ask: Ask, status: int) -> None:
    with serve(failure(status, f"Incorrect API key provided: {KEY}.")) as endpoint:
        with pytest.raises(LLMError, match="AGENTOS_LLM_API_KEY") as caught:
            ask(endpoint.base_url)
        with pytest.raises(LLMError, match="no key was sent"):
            ask(endpoint.base_url, api_key=None)
    assert KEY not in str(caught.value)
    assert "Incorrect API key" in str(caught.value)


def test_a_redirect_is_not_followed_and_says_where_it_leads(ask: Ask) -> None:
    reply = Reply(b"", 308, {"location": "https://elsewhere/v1"})
    with serve(reply) as endpoint, pytest.raises(LLMError, match="https://elsewhere/v1"):
        ask(endpoint.base_url)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<html>Welcome</html>"), "did not answer with JSON\nIt said: <html>Welcome"),
        (Reply(b"\xff\xfe\x00garbage"), "did not answer with JSON"),
        (Reply(b"[" * 100_000), "did not answer with JSON"),
        (Reply(b"[1]"), "did not answer with JSON"),
        (Reply(b""), "did not answer with JSON"),
        (Reply(b'{"object": "list"}'), "not answer with a chat completion"),
        (Reply(b'{"choices": []}'), "not answer with a chat completion"),
        (Reply(b'{"choices": [null]}'), "not answer with a chat completion"),
        (Reply(b'{"choices": "abc"}'), "not answer with a chat completion"),
        (Reply(b'{"error": {"message": "upstream is down"}}'), "upstream is down"),
        (completion(None), "has no text"),
        (completion("  \n"), "has no text"),
        (completion([{"type": "text"}]), "has no text"),
        (completion("half an ans", reason="length"), "cut off .*length"),
        (completion("half an ans", reason="content_filter"), "content filter"),
        (Reply(b"x" * (17 * 1024 * 1024)), "larger than"),
        (Reply(b"not gzip", headers={"content-encoding": "gzip"}), "cannot be read"),
    ],
)
def test_an_answer_that_is_no_whole_completion_is_an_error_and_not_paid_twice(
    ask: Ask, reply: Reply, message: str
) -> None:
    with serve(reply) as endpoint, pytest.raises(LLMError, match=message) as caught:
        ask(endpoint.base_url)
    assert len(endpoint.requests) == 1
    assert caught.value.hint
    assert len(str(caught.value)) < 1500


@pytest.mark.usefixtures("no_waiting")
def test_a_connection_that_breaks_off_is_tried_again(ask: Ask) -> None:
    with serve(Reply(b'{"choi', declared=1000), completion("whole")) as endpoint:
        assert ask(endpoint.base_url).text == "whole"


@pytest.mark.usefixtures("no_waiting")
def test_an_endpoint_that_is_not_there_is_unavailable(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    with pytest.raises(LLMUnavailable, match="cannot be reached") as caught:
        ask(url)
    assert "AGENTOS_LLM_BASE_URL" in str(caught.value.hint)


def test_a_try_that_takes_too_long_is_not_repeated(ask: Ask) -> None:
    slow = Reply(completion().body, hold=True)
    with serve(slow) as endpoint, pytest.raises(LLMError, match=r"within 0\.2 s"):
        ask(endpoint.base_url, timeout_s=0.2)
    assert len(endpoint.requests) == 1


async def test_cancelling_the_task_ends_the_call() -> None:
    with serve(Reply(completion().body, hold=True)) as endpoint, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ChatClient(endpoint.base_url, "m").acomplete("p")


async def test_calls_run_side_by_side() -> None:
    with serve(Reply(completion().body, hold=True)) as endpoint:
        client = ChatClient(endpoint.base_url, "m")
        tasks = [asyncio.create_task(client.acomplete("p")) for _ in range(8)]
        assert await asyncio.to_thread(endpoint.wait_for_requests, 8)
        endpoint.release.set()
        assert {(await task).text for task in tasks} == {"Hello."}


def test_a_prompt_that_cannot_be_sent_is_refused_before_the_call(ask: Ask) -> None:
    with serve(completion()) as endpoint, pytest.raises(InvalidValue):
        ask(endpoint.base_url, "lone \ud800")
    assert endpoint.requests == []


def test_a_url_or_key_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(ConfigInvalid, match="AGENTOS_LLM_BASE_URL"):
        ChatClient("localhost:8000", "m")
    with pytest.raises(ConfigInvalid, match="AGENTOS_LLM_API_KEY"):
        ChatClient("http://localhost", "m", "sk-ключ")


def test_the_repr_has_no_secrets() -> None:
    shown = repr(ChatClient("https://user:hunter2@host/v1", "m", KEY))
    assert "hunter2" not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, "AGENTOS_LLM_BASE_URL and AGENTOS_LLM_MODEL is not set"),
        ({"llm_base_url": "http://h/v1"}, "and AGENTOS_LLM_MODEL is not set"),
        ({"llm_model": "m"}, "and AGENTOS_LLM_BASE_URL is not set"),
    ],
)
def test_missing_settings_are_named(settings: dict[str, str], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "MODEL", "API_KEY"):
        monkeypatch.delenv(f"AGENTOS_LLM_{name}", raising=False)
    with pytest.raises(ConfigInvalid, match=missing):
        client_from_settings(Settings(**settings))  # type: ignore[arg-type]


def test_the_settings_make_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(completion()) as endpoint:
        monkeypatch.setenv("AGENTOS_LLM_BASE_URL", endpoint.base_url)
        monkeypatch.setenv("AGENTOS_LLM_MODEL", "m")
        monkeypatch.setenv("AGENTOS_LLM_API_KEY", KEY)
        client_from_settings(load_settings()).complete("p")
    assert endpoint.requests[0][1]["authorization"] == f"Bearer {KEY}"


def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'agentos-pool\[llm\]'"):
        ChatClient("http://127.0.0.1:9/v1", "m").complete("p")


def test_httpx_is_imported_with_the_first_call_only() -> None:
    program = "import sys, agentos.core.llm as llm; llm.ChatClient('http://h/v1', 'm'); print('httpx' in sys.modules)"
    paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=paths, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_retry_prints_nothing_on_stdout_of_a_program_that_configured_nothing() -> None:
    with serve(failure(429, retry_after="0"), completion("fine")) as endpoint:
        program = (
            f"from agentos.core.llm import ChatClient\nprint(ChatClient({endpoint.base_url!r}, 'm').complete('p').text)"
        )
        paths = {"PYTHONPATH": ":".join(filter(None, sys.path)), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", program], env=paths, capture_output=True, text=True, check=True)
    assert len(endpoint.requests) == 2
    assert done.stdout == "fine\n"
