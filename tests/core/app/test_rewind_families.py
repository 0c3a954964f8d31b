"""Going back with a task that is paused, and with one that has children."""

from pathlib import Path
from typing import Any

import pytest

from agentos.core.app import App, TaskContext
from agentos.testing import Pool


@pytest.fixture
def app(agentos_pool: Pool, tmp_path: Path) -> App:
    app = App(dsn=agentos_pool.dsn)

    @app.task("part")
    async def part(ctx: TaskContext, n: int) -> int:
        with (tmp_path / "world").open("a") as world:
            world.write(f"{n}\n")
        if n == 13 and not (tmp_path / "mended").exists():
            raise ValueError("unlucky")
        return n

    @app.task("whole")
    async def whole(ctx: TaskContext, parts: list[int]) -> Any:
        if ctx.snapshot is None:
            await ctx.checkpoint("iteration_start", {"parts": parts})
        children = [await ctx.spawn("part", {"n": n}, key=f"part-{n}", max_attempts=1) for n in parts]
        return await ctx.gather(*children)

    return app


def world(tmp_path: Path) -> list[str]:
    return (tmp_path / "world").read_text().splitlines()


def test_a_paused_task_that_is_rewound_stays_paused_and_goes_on_when_it_is_resumed(
    app: App, agentos_pool: Pool, tmp_path: Path
) -> None:
    handle = app.submit("whole", {"parts": [1, 2]})
    agentos_pool.drain(app)
    handle.rewind(1)
    handle.pause()
    handle.rewind(1)
    agentos_pool.drain(app)
    assert handle.status() == "paused"
    handle.resume()
    agentos_pool.drain(app)
    assert handle.result(0) == [1, 2]
    assert world(tmp_path) == ["1", "2"]  # the children's results replay


def test_rewinding_a_parent_keeps_the_children_that_completed_and_opens_those_that_failed(
    app: App, agentos_pool: Pool, tmp_path: Path
) -> None:
    handle = app.submit("whole", {"parts": [1, 13]})
    agentos_pool.drain(app)
    assert handle.status() == "failed"
    (tmp_path / "mended").touch()
    handle.rewind(1)
    agentos_pool.drain(app)
    assert handle.result(0) == [1, 13]
    assert world(tmp_path) == ["1", "13", "13"]


def test_a_parent_whose_spawns_are_executed_again_has_new_children_each_time(
    app: App, agentos_pool: Pool, tmp_path: Path
) -> None:
    handle = app.submit("whole", {"parts": [1, 2]})
    agentos_pool.drain(app)
    for _ in range(2):
        handle.rewind(1, re_execute=["@spawn", "@gather"])
        agentos_pool.drain(app)
        assert handle.result(0) == [1, 2]
    assert sorted(world(tmp_path)) == ["1", "1", "1", "2", "2", "2"]
