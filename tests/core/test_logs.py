"""Logs: where they go, in which form, what they name, and that no secret is in them."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from agentos.core.logs import bind_item, configure_logs, get_logger

CANARY = "c4nary-Value_0123456789"
log = get_logger("agentos.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_each_record_is_one_line_of_json(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    log.info("claimed\ntwo lines", items=3, name="x", module="y", args=[1])
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "claimed\ntwo lines",
        "level": "info",
        "logger": "agentos.test",
        "items": 3,
        "name": "x",
        "module": "y",
        "args": [1],
    }


def test_a_percent_format_is_filled_in_and_a_wrong_one_raises_nothing(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    log.info("%s of %d", "one", 2)
    log.info("%d of %d", "one")  # noqa: PLE1206  the mistake is what is tested
    log.info("100% sure")
    assert [line["event"] for line in lines(stream)] == ["one of 2", "%d of %d", "100% sure"]


def test_on_a_terminal_lines_are_coloured_and_what_a_model_wrote_cannot_steer_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    configure_logs(stream=terminal)
    log.info("claimed", answer="\x1b]0;title\x07")
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b]0;" not in terminal.getvalue()
    assert r"\x1b]0;title\x07" in terminal.getvalue()


def test_console_off_a_terminal_has_no_colours(stream: io.StringIO) -> None:
    configure_logs("console", stream=stream)
    log.info("claimed", items=3)
    assert "claimed" in stream.getvalue()
    assert "items=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_level_is_kept_and_chatty_libraries_speak_from_warning(stream: io.StringIO) -> None:
    configure_logs(level="info", stream=stream)
    log.debug("no")
    logging.getLogger("httpx").info("no")
    logging.getLogger("httpx").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]
    configure_logs(level="debug", stream=stream)
    log.debug("now")
    logging.getLogger("httpx").debug("too")
    assert [line["event"] for line in lines(stream)] == ["yes", "now", "too"]


def test_configuring_twice_does_not_say_things_twice(stream: io.StringIO) -> None:
    configure_logs(stream=io.StringIO())
    configure_logs(stream=stream)
    log.info("once")
    assert len(lines(stream)) == 1


def test_libraries_warnings_and_plain_structlog_go_the_same_way(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    logging.getLogger("library").warning("from %s", "logging", extra={"items": 2})
    structlog.get_logger("user").info("from structlog", items=3)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logs(stream=stream)
        warnings.warn("from warnings", stacklevel=1)
    first, second, third = lines(stream)
    assert (first["event"], first["logger"], first["items"]) == ("from logging", "library", 2)
    assert (second["event"], second["items"]) == ("from structlog", 3)
    assert "from warnings" in third["event"]


async def test_lines_name_the_item_of_their_own_task_and_of_its_threads(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    both_bound = asyncio.Barrier(2)

    async def handle(item_id: int) -> None:
        with bind_item(task_id="t", item_id=item_id, attempt=1, worker_id=7):
            await both_bound.wait()
            log.info("async", mine=item_id)
            await asyncio.to_thread(log.info, "thread", mine=item_id)
            logging.getLogger("library").warning("library")
        log.info("after", mine=item_id)

    await asyncio.gather(handle(1), handle(2))
    found = lines(stream)
    bound = [line for line in found if line["event"] in {"async", "thread"}]
    assert len(bound) == 4
    assert all((line["item_id"], line["task_id"], line["worker_id"]) == (line["mine"], "t", 7) for line in bound)
    assert {line["item_id"] for line in found if line["event"] == "library"} == {1, 2}
    assert not any("item_id" in line for line in found if line["event"] == "after")


class Opaque:
    def __repr__(self) -> str:
        return f"Opaque(password={CANARY})"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_canary_secret_is_in_no_line(format: Any, stream: io.StringIO) -> None:
    configure_logs(format, "debug", stream)
    dsn = f"postgresql://user:{CANARY}@host/db"

    def fail() -> None:
        password = CANARY
        try:
            raise LookupError(f"key sk-{CANARY}")
        except LookupError as cause:
            error = RuntimeError(f"cannot reach {dsn}")
            error.add_note(f"password={password}")
            raise ExceptionGroup("both", [error, ValueError(f"Bearer {CANARY}")]) from cause

    log.info(f"connecting to {dsn}", dsn=dsn, url=dsn, token=CANARY, deep={"a": [{"api_key": CANARY}, Opaque()]})
    logging.getLogger("library").error("to %s with %r", dsn, {"password": CANARY}, extra={"authorization": CANARY})
    logging.getLogger("library").info("%(secret)s and %(dsn)s", {"secret": f"sk-{CANARY}", "dsn": dsn})
    try:
        fail()
    except ExceptionGroup:
        log.exception("failed", error=Opaque())
        logging.getLogger("library").exception("failed")
    log.warning("caught password=%s", CANARY, exc_info=RuntimeError(dsn))
    assert stream.getvalue().count("redacted") >= 12
    assert CANARY not in stream.getvalue()
    assert "LookupError" in stream.getvalue()
    assert "ExceptionGroup" in stream.getvalue()


def test_a_huge_text_is_cut(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    log.info("output", text="x" * 1_000_000)
    assert len(stream.getvalue()) < 20_000


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_line_that_cannot_be_written_stops_nothing_and_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "__stderr__", stream)
    configure_logs(stream=Broken())
    log.error("password=%s", CANARY)
    assert stream.getvalue() == "agentos: a log line of agentos.test was lost: BrokenPipeError\n"


def test_as_a_library_agentos_configures_nothing_and_prints_nothing_on_stdout() -> None:
    script = (
        "import logging, structlog\n"
        "from agentos.core.logs import get_logger\n"
        "assert not structlog.is_configured() and not logging.getLogger().handlers\n"
        "log = get_logger('agentos.x')\n"
        "log.info('quiet'); log.warning('loud', name=1)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "loud\n")
