"""A rolling upgrade under load: the next image's functions on the same tables, then every process replaced in turn."""

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import pytest
from tests.coordinator.daemon import until
from tests.deploy.engine import NEXT, Container, build_next
from tests.deploy.fleet import Fleet, ask

from agentos.core.app import TaskHandle

pytestmark = pytest.mark.timeout(600)

STEPS = 12
ENDS = """
    SELECT l.kind, i.item_id, p.attempt, p.failures, p.crashes
      FROM agentos.item_places p JOIN agentos.work_items i USING (item_id) JOIN agentos.lanes l USING (lane)
"""


@dataclass(slots=True)
class Load:
    """Submits from here for as long as the block runs: short tasks, and so many long ones that each worker has some."""

    fleet: Fleet
    handles: list[TaskHandle] = field(default_factory=list)
    refused: list[BaseException] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._submit)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _submit(self) -> None:
        for n in range(100_000):
            if self._end.wait(0.03):
                return
            try:
                if n % 10:
                    self.handles.append(self.fleet.submit("quick", n=n))
                else:
                    self.handles.append(self.fleet.submit("steps", name=str(n), n=STEPS, pause_s=0.2))
            except Exception as exc:  # every one of them is looked at in the end
                self.refused.append(exc)

    def grown_by(self, more: int) -> None:
        """Wait until so many tasks more were submitted."""
        enough = len(self.handles) + more
        until(lambda: len(self.handles) >= enough, timeout_s=60, what="the load")


def events(containers: list[Container], event: str) -> list[dict[str, object]]:
    """The lines of this event in their logs."""
    lines = [json.loads(line) for each in containers for line in each.logs().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_nothing_is_lost_and_no_attempt_is_charged(fleet: Fleet) -> None:
    build_next()
    old = [fleet.worker("--concurrency=4") for _ in range(2)]
    first_coordinator = fleet.coordinator()
    with Load(fleet) as load:
        load.grown_by(60)

        migrated = fleet.start("agentos", "migrate", "--json", image=NEXT)
        until(lambda: not migrated.state()["Running"], timeout_s=60, what="the end of the migration")
        said = json.loads(migrated.logs())
        assert (said["applied"], said["functions"]) == ([], True)
        load.grown_by(60)  # the old version on the new functions
        assert [ask(each, "/readyz")[0] for each in old] == [200, 200]

        coordinator = fleet.coordinator(image=NEXT)
        assert first_coordinator.stop()[0] == 0
        new, drained_s = [], []
        for each in old:
            new.append(fleet.worker("--concurrency=4", image=NEXT))
            code, took_s = each.stop()
            assert code == 0, each.logs()
            drained_s.append(took_s)
        load.grown_by(30)

    assert load.refused == []
    for handle in load.handles:
        handle.result(90)
    ended = fleet.rows(ENDS)
    assert len(ended) == len(load.handles)
    assert {(failures, crashes) for _, _, _, failures, crashes in ended} == {(0, 0)}

    handed_back = Counter(line["item_id"] for line in events(old, "handed back"))
    again = {item_id: attempt - 1 for kind, item_id, attempt, _, _ in ended if kind == "steps" and attempt > 1}
    assert again == dict(handed_back), "attempts beyond the first are those that a drain handed back"
    assert handed_back, "the drains found handlers at work"

    long = sum(kind == "steps" for kind, *_ in ended)
    keys = [line.split()[0] for line in fleet.lines()]
    assert len(keys) == len(set(keys)) == long * STEPS, "each effect exactly once"
    assert len(events(old, "drained")) == 2
    assert events([*old, *new], "attempt failed") == []
    print(f"{len(ended)} tasks, {long} of them long; {len(handed_back)} handed back; drains {drained_s}")
    assert max(drained_s) < 20
    assert coordinator.stop()[0] == 0


def test_an_old_process_that_starts_after_the_migration_says_what_to_do(fleet: Fleet) -> None:
    build_next()
    migrated = fleet.start("agentos", "migrate", image=NEXT)
    until(lambda: not migrated.state()["Running"], timeout_s=60, what="the end of the migration")
    late = fleet.start("agentos-worker")
    until(lambda: not late.state()["Running"], timeout_s=60, what="the end of the old version")
    assert late.state()["ExitCode"] == 3
    assert "run `agentos migrate` with the version that all hosts are to use" in late.logs()
    back = fleet.start("agentos", "migrate")
    until(lambda: not back.state()["Running"], timeout_s=60, what="the way back")
    assert back.state()["ExitCode"] == 0
    fleet.worker()
