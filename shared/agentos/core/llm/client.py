"""`ChatClient`: one chat completion over HTTP, retried while that can help. httpx and stamina are imported by a client
that is asked: every worker imports this module, and few ask a model through it.
"""

import functools
import importlib.metadata
import ssl
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import structlog

from agentos.core.llm.answer import Answer, read_completion
from agentos.core.llm.completion import Completion
from agentos.store.canonical import canonical
from agentos.store.errors import ConfigInvalid, LLMError, LLMUnavailable
from agentos.store.redact import redact
from agentos.store.settings import Settings

if TYPE_CHECKING:
    import httpx

_ANSWER_LIMIT = 16 * 1024 * 1024
_FIRST_WAIT_S, _LONGEST_BACKOFF_S, _JITTER_S = 0.5, 8.0, 0.5


class ChatClient:
    """A model behind POST `{base_url}/chat/completions`. Safe for threads and for any number of event loops.

    `base_url` goes up to the version, as in https://host/v1. `api_key` is sent as a bearer token; None sends none.
    `timeout_s`: seconds for one try (default 120). `attempts`: tries in all (default 4), of which those after the first
    follow a connection that failed, a 429 or a 5xx, after 0.5 s, 1 s, 2 s … or what Retry-After says (up to 30 s).
    A try that took too long is not repeated: it may have been paid for.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 120.0, *, attempts: int = 4
    ) -> None:
        """Raises ConfigInvalid: if `base_url` is no http(s) URL, or `api_key` cannot be sent in a header."""
        if not base_url.startswith(("http://", "https://")):
            raise ConfigInvalid(
                f"the base URL {base_url!r} is no http(s) URL", hint="write AGENTOS_LLM_BASE_URL as https://host/v1"
            )
        key = (api_key or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ConfigInvalid(
                "the API key has characters that no HTTP header can hold", hint="copy AGENTOS_LLM_API_KEY again"
            )
        self.model = model
        self.timeout_s = timeout_s
        self.attempts = attempts
        self._url = base_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._shown_url = str(redact(self._url))
        self._api_key = key or None

    def __repr__(self) -> str:
        return f"ChatClient({self._shown_url!r}, {self.model!r})"

    def complete(
        self, prompt: Any, *, model: str | None = None, system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (), parameters: Mapping[str, Any] | None = None,
    ) -> Completion:  # fmt: skip
        """The answer to `prompt`, a text or a list of messages. `model` replaces the client's for this call; `system`
        goes before the prompt; `tools` and `parameters` (temperature, max_tokens ...) are sent as they are.

        Raises LLMError: if there is no whole answer; the hint says what to do. LLMUnavailable: later it may be there.
        Raises ConfigInvalid: if httpx is not installed. Raises InvalidValue or ValueTooLarge: if `prompt` is unfit.
        """
        request = self._request(prompt, model, system, tools, parameters)
        _keep_retry_logs_off_stdout()
        for attempt in self._attempts():
            with attempt:
                answer = self._post(request)
                return read_completion(answer, model=model or self.model, api_key=self._api_key)
        raise AssertionError("stamina raises the last error")

    async def acomplete(
        self, prompt: Any, *, model: str | None = None, system: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (), parameters: Mapping[str, Any] | None = None,
    ) -> Completion:  # fmt: skip
        """`complete` for asyncio. Cancelling the task closes the connection."""
        request = self._request(prompt, model, system, tools, parameters)
        _keep_retry_logs_off_stdout()
        async for attempt in self._attempts():
            with attempt:
                answer = await self._apost(request)
                return read_completion(answer, model=model or self.model, api_key=self._api_key)
        raise AssertionError("stamina raises the last error")

    def _request(
        self, prompt: Any, model: str | None, system: str | None, tools: Sequence[Mapping[str, Any]],
        parameters: Mapping[str, Any] | None,
    ) -> dict[str, Any]:  # fmt: skip
        messages = [{"role": "system", "content": system}] if system else []
        messages += prompt if isinstance(prompt, list | tuple) else [{"role": "user", "content": prompt}]
        headers = {"content-type": "application/json", "accept": "application/json", "user-agent": _user_agent()}
        if self._api_key:
            headers["authorization"] = f"Bearer {self._api_key}"
        content = canonical(
            {**(parameters or {}), **({"tools": list(tools)} if tools else {}), "model": model or self.model,
             "messages": messages}, what="the prompt",
        )  # fmt: skip
        return {"method": "POST", "url": self._url, "content": content, "headers": headers}

    def _attempts(self) -> Any:  # stamina does not export the type of its context
        import stamina  # noqa: PLC0415  as above

        return stamina.retry_context(
            on=_wait_before_next,
            attempts=self.attempts,
            timeout=None,
            wait_initial=_FIRST_WAIT_S,
            wait_max=_LONGEST_BACKOFF_S,
            wait_jitter=_JITTER_S,
        )

    def _post(self, request: dict[str, Any]) -> Answer:
        httpx = _httpx()
        body = _Body(self._shown_url, self.timeout_s)
        try:
            with httpx.Client(timeout=self.timeout_s, verify=_tls()) as client, client.stream(**request) as response:
                for chunk in response.iter_bytes():
                    body.add(chunk)
                return body.answer(response)
        except httpx.RequestError as error:
            raise self._no_answer(error) from error

    async def _apost(self, request: dict[str, Any]) -> Answer:
        httpx = _httpx()
        body = _Body(self._shown_url, self.timeout_s)
        try:
            async with (
                httpx.AsyncClient(timeout=self.timeout_s, verify=_tls()) as client,
                client.stream(**request) as response,
            ):
                async for chunk in response.aiter_bytes():
                    body.add(chunk)
                return body.answer(response)
        except httpx.RequestError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: "httpx.RequestError") -> LLMError:
        httpx = _httpx()
        what = str(redact(str(error) or type(error).__name__))
        if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            return _too_slow(self._shown_url, self.timeout_s)
        if isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol):
            return LLMUnavailable(
                f"{self._shown_url} cannot be reached: {what}",
                hint="start the endpoint, or check AGENTOS_LLM_BASE_URL and the network",
            )
        return LLMError(f"{self._shown_url} sent what cannot be read: {what}", hint="check AGENTOS_LLM_BASE_URL")


class _Body:
    """The body of a response as it comes in; neither endless in size nor in time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > _ANSWER_LIMIT:
            raise LLMError(
                f"the answer of {self._url} is larger than {_ANSWER_LIMIT} bytes", hint="check AGENTOS_LLM_BASE_URL"
            )
        if time.monotonic() > self._deadline:
            raise _too_slow(self._url, self._timeout_s)

    def answer(self, response: "httpx.Response") -> Answer:
        return Answer(self._url, response.status_code, response.headers, bytes(self._data))


def client_from_settings(settings: Settings) -> ChatClient:
    """The client that AGENTOS_LLM_BASE_URL, AGENTOS_LLM_MODEL and AGENTOS_LLM_API_KEY describe.

    Raises ConfigInvalid: if the URL or the model is not set. The key may be missing: some endpoints need none.
    """
    if not settings.llm_base_url or not settings.llm_model:
        names = {"AGENTOS_LLM_BASE_URL": settings.llm_base_url, "AGENTOS_LLM_MODEL": settings.llm_model}
        missing = " and ".join(name for name, value in names.items() if not value)
        raise ConfigInvalid(
            f"a real model is asked for, and {missing} is not set",
            hint="set AGENTOS_LLM_BASE_URL (as in https://host/v1), AGENTOS_LLM_MODEL and, if the endpoint needs a "
            "key, AGENTOS_LLM_API_KEY; or use use_real_pipeline=False",
        )
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    return ChatClient(settings.llm_base_url, settings.llm_model, key)


def _wait_before_next(error: Exception) -> bool | float:
    """What stamina asks: not again, again after its own backoff, or again after so many seconds."""
    if not isinstance(error, LLMUnavailable):
        return False
    return True if error.wait_s is None else error.wait_s


def _too_slow(url: str, timeout_s: float) -> LLMError:
    return LLMError(
        f"{url} did not answer within {timeout_s:g} s",
        hint="give the client a larger timeout_s, or ask for less; the call is not repeated, it may have been paid for",
    )


def _keep_retry_logs_off_stdout() -> None:
    """stamina logs retries through structlog, which prints to stdout in a program that has not configured it."""
    if structlog.is_configured():
        return
    from stamina.instrumentation import (  # noqa: PLC0415  as above
        LoggingOnRetryHook,
        StructlogOnRetryHook,
        get_on_retry_hooks,
        set_on_retry_hooks,
    )

    noisy = StructlogOnRetryHook.hook_factory.__module__
    hooks = get_on_retry_hooks()
    if any(hook.__module__ == noisy for hook in hooks):
        set_on_retry_hooks([LoggingOnRetryHook if hook.__module__ == noisy else hook for hook in hooks])


def _httpx() -> ModuleType:
    try:
        import httpx  # noqa: PLC0415  start-up: 0.3 s, and an optional dependency
    except ImportError:
        raise ConfigInvalid(
            "asking a model over HTTP needs httpx, which is not installed",
            hint="pip install 'agentos-pool[llm]'",
        ) from None
    return httpx


@functools.cache
def _tls() -> ssl.SSLContext:
    """Shared by all calls: loading the certificates takes about 30 ms."""
    context: ssl.SSLContext = _httpx().create_ssl_context()
    return context


@functools.cache
def _user_agent() -> str:
    try:
        return f"agentos-pool/{importlib.metadata.version('agentos-pool')}"
    except importlib.metadata.PackageNotFoundError:  # run from a checkout by PYTHONPATH
        return "agentos-pool"
