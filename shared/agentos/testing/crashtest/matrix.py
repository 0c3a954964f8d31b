"""Running the matrix: one cell is one task or call, one process killed at one point, and what came of it is checked."""

import secrets
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentos.core.app import App, TaskHandle
from agentos.store.calls import tasks
from agentos.store.errors import AgentOSError, TaskExists, TaskFailed
from agentos.store.run import Call
from agentos.testing.crash import CRASH_TIMES, CrashPoint, Saboteur, crash_at
from agentos.testing.crashtest.alone import CHILD_S, play
from agentos.testing.crashtest.scenario import Act, Effects, Scenario
from agentos.testing.crashtest.transition import Transition
from agentos.testing.fork import in_child
from agentos.testing.pool import Pool
from agentos.testing.soundness import assert_sound

MOST_DRAINS = 12


@dataclass(frozen=True, slots=True)
class Cell:
    """`trouble` None: everything held."""

    scenario: str
    call: str
    when: str
    seconds: float
    trouble: str | None = None

    @property
    def holds(self) -> bool:
        """Whether everything held."""
        return self.trouble is None


def run_matrix(pool: Pool, scenarios: Iterable[Scenario | Transition], folder: Path) -> Iterator[Cell]:
    """Every scenario, killed at each of its points; a cell as soon as it is known. `folder` takes the effects."""
    for scenario, point in places_of(scenarios):
        yield play_cell(pool, scenario, point, folder)


def places_of(scenarios: Iterable[Scenario | Transition]) -> Iterator[tuple[Scenario | Transition, CrashPoint]]:
    """The cells to be played, in order."""
    for scenario in scenarios:
        for call in scenario.calls:
            for when in CRASH_TIMES:
                yield scenario, CrashPoint(when, call)


def play_cell(pool: Pool, scenario: Scenario | Transition, point: CrashPoint, folder: Path) -> Cell:
    """One of them, and what came of it."""
    started = time.monotonic()
    name = f"{scenario.name}-{point.when}-{point.call}-{secrets.token_hex(3)}"
    trouble: str | None = None
    try:
        if isinstance(scenario, Transition):
            play(pool, scenario, point, name)
        else:
            _Run(pool, scenario, point, Effects(folder / name), name).go()
    except Exception as exc:
        if not isinstance(exc, AssertionError | AgentOSError | TimeoutError):
            traceback.print_exc()  # not one that says all there is to know
        trouble = str(exc) or type(exc).__name__
        _stop_what_is_left(pool)
    return Cell(scenario.name, point.call, point.when, time.monotonic() - started, trouble)


def _stop_what_is_left(pool: Pool) -> None:
    """A task that was given up would be worked off with the next cell's app, and its effects counted there."""
    for task in pool.database.run(tasks.list_tasks(limit=1000)):
        if task.status not in ("completed", "failed", "cancelled"):
            pool.database.run(tasks.cancel_task(task.task_id))


class _Run:
    """One task under sabotage."""

    def __init__(self, pool: Pool, scenario: Scenario, point: CrashPoint, effects: Effects, task_id: str) -> None:
        self.pool, self.scenario, self.point, self.effects, self.task_id = pool, scenario, point, effects, task_id
        self.app = scenario.app(effects)
        self.handle = TaskHandle(task_id, self.app._database())

    def go(self) -> None:
        """Raises AssertionError: if something does not hold."""
        by_caller = self.point.call in self.scenario.caller_calls
        died = self._by_caller(self._submit, sabotage=by_caller)
        if self.scenario.first:
            with crash_at(self.scenario.first):
                self.pool.drain(self.app)
        acts = list(self.scenario.acts)
        for _ in range(MOST_DRAINS):
            dies = self._drain(sabotage=not by_caller and not died)
            died = died or dies
            if self._ended():
                break
            if acts and not dies:
                died = self._by_caller(acts.pop(0), sabotage=by_caller and not died) or died
        _require(died, f"it never came to {self.point}")
        self._check()

    def _submit(self, app: App, _handle: TaskHandle, _effects: Effects) -> None:
        kind = self.scenario.kind or self.scenario.name
        try:
            app.submit(kind, self.scenario.payload, task_id=self.task_id, **self.scenario.submit)
        except TaskExists:
            return  # the one that died had got so far

    def _by_caller(self, act: Act, *, sabotage: bool) -> bool:
        """Whether the process died of it; it is done again then, as a person would."""
        died = False
        if sabotage:

            def victim(tell: Callable[[str], None]) -> None:
                Saboteur(self.point, tell).install()
                app = self.scenario.app(self.effects)
                act(app, TaskHandle(self.task_id, app._database()), self.effects)

            ended = in_child(victim, timeout_s=CHILD_S)
            died = ended.killed
            if not died and ended.code == 0:
                return False  # it was done, without passing the point
        act(self.app, self.handle, self.effects)
        return died

    def _drain(self, *, sabotage: bool) -> bool:
        if not sabotage:
            self.pool.drain(self.app, skip_waits=True)
            return False
        with crash_at(f"{self.point.when}:{self.point.call}", nth=self.point.nth):
            return self.pool.drain(self.app, skip_waits=True, must_die=False).killed

    def _ended(self) -> bool:
        return self.handle.status() in ("completed", "failed", "cancelled")

    def _check(self) -> None:
        status = self.handle.status()
        if status == "failed" != self.scenario.status:
            self._tell_failure()
        _require(status == self.scenario.status, f"the task is {status}")
        if status == "completed":
            result = self.handle.result(0)
            _require(result == self.scenario.result, f"its result is {result!r}")
        self._check_effects()
        begun = self.pool.database.run(_begun(self.task_id))
        _require(not begun, f"left begun in the ledger: {', '.join(begun)}")
        assert_sound(self.pool.dsn)

    def _tell_failure(self) -> None:
        try:
            self.handle.result(0)
        except TaskFailed as exc:
            raise AssertionError(exc.message) from exc

    def _check_effects(self) -> None:
        counted = self.effects.counted()
        for effect in self.scenario.once:
            most = 2 if str(self.point) in self.scenario.repeats.get(effect, ()) else 1
            _require(1 <= counted[effect] <= most, f"{effect} was done {counted[effect]} times")


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _begun(task_id: str) -> Call[tuple[str, ...]]:
    return Call(
        "SELECT tool_name FROM agentos.tool_ledger WHERE task_id = $1::text AND state = 'begun'",
        (task_id,),
        lambda rows: tuple(str(row["tool_name"]) for row in rows),
    )
