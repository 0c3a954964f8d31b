"""Every door through which a value comes into the pool: refused before any side effect, or back exactly as it was."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from tests.worker.inprocess import outcome, serving

from agentos.core.app import App, TaskContext
from agentos.store.calls import tasks
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, InvalidValue, TaskFailed, ValueTooLarge

Conn = psycopg.Connection[Any]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


REFUSED: dict[str, Callable[[], Any]] = {  # made when asked for: some are large
    "nul": lambda: "a\0b",
    "nul in a key": lambda: {"a\0": 1},
    "lone surrogate": lambda: "\ud800",
    "file name of odd bytes": lambda: b"\xff".decode("utf-8", "surrogateescape"),
    "nan": lambda: float("nan"),
    "1e400": lambda: float("1e400"),
    "minus infinity": lambda: [-float("inf")],
    "an integer of 5000 digits": lambda: 10**5000,
    "too deep": lambda: nested(150),
    "much too deep": lambda: nested(100_000),
    "cycle": cycle,
    "bytes": lambda: b"x",
    "set": lambda: {1, 2},
    "number as key": lambda: {1: 2},
    "object": object,
    "9 MiB": lambda: "x" * 9 * 1024 * 1024,
    "300 MiB": lambda: "x" * 300 * 1024 * 1024,
    "3,000,000 keys": lambda: dict.fromkeys(map(str, range(3_000_000))),
}

EXACT: dict[str, Any] = {
    "null": None,
    "beyond a double": 2**53 + 1,
    "a long integer": -(10**400) + 7,
    "floats": [0.1, 1e-7, 1.7976931348623157e308, 5e-324, -2.5],
    "text": 'ß€😀\u2028\x7f\u0001"\\/ \ufeff',
    "odd keys": {"": 1, "ß": 2, "😀": 3, "a.b[0]": 4},
    "empty": [[], {}, ""],
    "deep": nested(90),
    "looks like something else": ["NaN", "null", "1e400", "\\u0000", "\\ud800"],
    "7 MiB": "y" * 7 * 1024 * 1024,
}


async def give_back(value: Any) -> Any:
    return {"kept": value}


async def by_tool_arguments(ctx: TaskContext, value: Any) -> Any:
    return (await ctx.tool("echo", {"v": value}))["said"]["v"]


async def by_tool_result(ctx: TaskContext, value: Any) -> Any:
    async def execute(_call: object, _arguments: object) -> Any:
        return {"said": value}

    return (await ctx.tool("made", key="k", execute=execute))["said"]


async def by_llm(ctx: TaskContext, value: Any) -> Any:
    return await ctx.llm("op", prompt="p", model="m", generate=lambda _: value)


async def by_prompt(ctx: TaskContext, value: Any) -> Any:
    return (await ctx.llm("op", prompt={"v": value}, model="m", generate=lambda prompt: prompt))["v"]


async def by_checkpoint(ctx: TaskContext, value: Any) -> Any:
    await ctx.checkpoint("manual_checkpoint", {"v": value})
    return value


async def by_result(_ctx: TaskContext, value: Any) -> Any:
    return value


Door = Callable[[TaskContext, Any], Awaitable[Any]]
DOORS: tuple[Door, ...] = (by_tool_arguments, by_tool_result, by_llm, by_prompt, by_checkpoint, by_result)


def app_of(dsn: str, values: Callable[[str], Any], door: Door, caught: list[Any]) -> App:
    app = App(dsn=dsn)

    @app.tool("echo")
    async def echo(arguments: Any) -> Any:
        return {"said": arguments}

    @app.task("carry")
    async def carry(ctx: TaskContext, name: str) -> Any:
        try:
            return await door(ctx, values(name))
        except InvalidInput as error:
            caught.append((name, error))
            raise

    return app


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
async def test_what_json_cannot_hold_fails_its_own_item_at_once_and_leaves_nothing_half_done(
    database_dsn: str, conn: Conn, door: Door
) -> None:
    caught: list[tuple[str, InvalidInput]] = []
    app = app_of(database_dsn, lambda name: REFUSED[name](), door, caught)
    handles = {name: app.submit("carry", {"name": name}) for name in REFUSED}
    async with serving(app, database_dsn) as worker:
        ended = {name: await outcome(handle, 60) for name, handle in handles.items()}
        async with asyncio.timeout(10):
            while worker.held:  # noqa: ASYNC110  an outcome is there before its worker has read the reply
                await asyncio.sleep(0.01)
    assert all(isinstance(error, TaskFailed) for error in ended.values()), ended
    assert {type(error) for _, error in caught} <= {InvalidValue, ValueTooLarge}
    assert {name for name, _ in caught} == (set() if door is by_result else set(REFUSED))
    assert conn.execute("SELECT DISTINCT failures FROM agentos.outcomes").fetchall() == [(1,)]
    left = "SELECT count(*) FROM agentos.checkpoints UNION ALL SELECT count(*) FROM agentos.llm_cache"
    assert conn.execute(left).fetchall() == [(0,), (0,)]
    states = conn.execute("SELECT DISTINCT state, exit_code FROM agentos.tool_ledger").fetchall()
    assert states == ([("finished", None)] if door is by_tool_result else [])


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
async def test_what_json_can_hold_comes_back_exactly(database_dsn: str, conn: Conn, door: Door) -> None:
    app = app_of(database_dsn, EXACT.__getitem__, door, [])
    handles = {name: app.submit("carry", {"name": name}) for name in EXACT}
    async with serving(app, database_dsn):
        assert {name: await outcome(handle) for name, handle in handles.items()} == EXACT
    if door is by_checkpoint:
        stored = conn.execute("SELECT snapshot::text FROM agentos.checkpoints").fetchall()
        assert len(stored) == len(EXACT)


@pytest.mark.parametrize("name", REFUSED)
def test_a_payload_that_json_cannot_hold_is_refused_and_nothing_is_submitted(
    database_dsn: str, conn: Conn, name: str
) -> None:
    with pytest.raises((InvalidValue, ValueTooLarge), match="payload"):
        App(dsn=database_dsn).submit("carry", {"v": REFUSED[name]()})
    assert conn.execute("SELECT 1 FROM agentos.task_records").fetchall() == []


async def test_payloads_arrive_exactly(database_dsn: str) -> None:
    app = App(dsn=database_dsn)

    @app.task("echo")
    async def echo(ctx: TaskContext, v: Any) -> Any:
        return v

    handles = {name: app.submit("echo", {"v": value}) for name, value in EXACT.items()}
    async with serving(app, database_dsn):
        assert {name: await outcome(handle) for name, handle in handles.items()} == EXACT


async def test_a_payload_written_past_the_api_that_cannot_be_read_fails_its_own_item(
    database_dsn: str, db: Database
) -> None:
    app = App(dsn=database_dsn)

    @app.task("echo")
    async def echo(ctx: TaskContext, v: Any) -> Any:
        return v

    unreadable = [
        '{"v": 1e400}',
        '{"v": ' + "9" * 5000 + "}",
        '{"v": ' + "[" * 2000 + "]" * 2000 + "}",
        '{"v": "\\u0000"}',
    ]
    for n, text in enumerate(unreadable):
        db.run(tasks.submit(f"task-{n}", "echo", "a title", text))
    async with serving(app, database_dsn):
        errors = [str(await outcome(app.handle(f"task-{n}"))) for n in range(len(unreadable))]
        assert await outcome(app.submit("echo", {"v": "fine"})) == "fine"
    assert all("failed" in error for error in errors), errors
