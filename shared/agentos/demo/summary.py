"""The end: what was counted, what it means, and how it is told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentos.demo import artifacts, effects
from agentos.demo.effects import Effect, Tally
from agentos.demo.sabotage import Strike
from agentos.demo.watch import Look, Records


@dataclass(frozen=True, slots=True)
class Resumed:
    """An item that went on. `checkpoint`: its sequence number, None: from the beginning. `seconds`: since the kill."""

    item: str
    checkpoint: int | None
    checkpoint_type: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """A checkpoint that did not hold any more."""

    item: str
    checkpoint: int
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of one run. `problems`: empty if everything is as it must be."""

    task_id: str
    status: str
    seconds: float
    items: int
    completed: int
    killed_worker: str | None
    killed_item: str | None
    corrupted: str | None
    items_held_at_kill: int
    seconds_to_first_resume: float | None
    seconds_to_last_resume: float | None
    resumed: tuple[Resumed, ...]
    rejected: tuple[Rejected, ...]
    calls_executed: int
    calls_replayed: int
    calls_repaired: int
    llm_calls_made: int
    llm_calls_made_again: int
    llm_calls_saved: int
    effects: int
    effects_repaired: int
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    effects_log: str
    report: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing twice, and the recovery really happened."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"ok": self.ok, **asdict(self)}


def summarise(
    task_id: str, seconds: float, folder: Path, strike: Strike | None, look: Look, records: Records,
    expected: Sequence[str],
) -> Summary:  # fmt: skip
    """Count everything, once the task has ended."""
    log = effects.read(folder)
    counted = effects.tally(log, expected=expected, recorded_keys=records.finished_keys)
    resumed, rejected = resumptions(strike, look, records), rejections(look)
    waits = [each.seconds for each in resumed]
    repairs = sum(call.repairs for call in records.calls)
    return Summary(
        task_id=task_id, status=look.progress.status, seconds=round(seconds, 1), items=len(look.items),
        completed=look.done, killed_worker=f"{strike.worker} (pid {strike.pid})" if strike else None,
        killed_item=strike.victim_name if strike else None, corrupted=str(strike.artifact) if strike else None,
        items_held_at_kill=len(taken_back(strike, look)) if strike else 0,
        seconds_to_first_resume=min(waits, default=None), seconds_to_last_resume=max(waits, default=None),
        resumed=resumed, rejected=rejected,
        calls_executed=sum(call.executions for call in records.calls),
        # Asking for a call that is repaired then counts as a replay first.
        calls_replayed=sum(call.replays for call in records.calls) - repairs, calls_repaired=repairs,
        llm_calls_made=sum(prompt.generations for prompt in records.prompts),
        llm_calls_made_again=sum(prompt.generations - 1 for prompt in records.prompts),
        llm_calls_saved=sum(prompt.hits for prompt in records.prompts), effects=counted.effects,
        effects_repaired=counted.repaired, lost=counted.lost, duplicated=counted.duplicated,
        effects_log=str(folder / effects.NAME), report=str(folder / "report.html"),
        problems=tuple(problems(strike, look, counted, log, resumed, rejected)),
    )  # fmt: skip


def resumptions(strike: Strike | None, look: Look, records: Records) -> tuple[Resumed, ...]:
    """What became of each item that the killed worker held, in the order in which they went on."""
    if strike is None:
        return ()
    kinds = {each.sequence_number: each.checkpoint_type for each in records.checkpoints}
    found = []
    for event in look.events:
        if event.event == "resumed" and event.item_id in strike.held and event.at >= strike.killed_at:
            number = event.data["sequence_number"]
            waited = round((event.at - strike.killed_at).total_seconds(), 2)
            found.append(Resumed(look.name_of(event.item_id), number, kinds.get(number), waited))
    return tuple(found)


def rejections(look: Look) -> tuple[Rejected, ...]:
    """Every checkpoint that was found not to hold."""
    return tuple(
        Rejected(look.name_of(event.item_id), event.data["sequence_number"], event.data["reason"])
        for event in look.events if event.event == "checkpoint_superseded"
    )  # fmt: skip


def problems(
    strike: Strike | None, look: Look, counted: Tally, log: Sequence[Effect], resumed: Sequence[Resumed],
    rejected: Sequence[Rejected],
) -> list[str]:  # fmt: skip
    """What is not as it must be."""
    found = []
    if look.progress.status != "completed":
        found.append(f"the task is {look.progress.status}: {look.progress.reason}")
    if counted.lost:
        found.append(f"{len(counted.lost)} effects are lost: {', '.join(counted.lost[:5])}")
    if counted.duplicated:
        found.append(f"{len(counted.duplicated)} effects happened twice: {', '.join(counted.duplicated[:5])}")
    if damaged := _damaged(log):
        found.append(f"artifacts are not as they were written: {', '.join(damaged[:5])}")
    if strike is None:
        found.append("no worker was killed: the audit was over before one held an item with a checkpoint (see --pace)")
        return found
    if strike.victim_name not in {each.item for each in resumed}:
        found.append(f"{strike.victim_name} was held by the killed worker and never resumed from a checkpoint")
    if strike.sequence_number not in {each.checkpoint for each in rejected}:
        found.append(f"checkpoint {strike.sequence_number} vouches for the changed artifact and was not rejected")
    if not any(each.repair and each.result.get("path") == str(strike.artifact) for each in log):
        found.append(f"the changed artifact {strike.artifact} was not repaired")
    # What it had told the database to complete when it was killed is completed, and needs no recovery.
    completed = {item.item_id for item in look.items if item.worker_id == strike.worker_id and item.place == "outcome"}
    if never := set(strike.held) - taken_back(strike, look) - completed:
        found.append(f"{len(never)} items of the killed worker were never taken back")
    return found


def taken_back(strike: Strike, look: Look) -> set[int]:
    """The items whose lease was taken from the killed worker."""
    return {
        event.item_id for event in look.events
        if event.event == "lease_reclaimed" and event.worker_id == strike.worker_id and event.item_id is not None
    }  # fmt: skip


def _damaged(log: Sequence[Effect]) -> list[str]:
    newest = {each.result["path"]: each.result for each in log if each.tool == "write_artifact"}
    return [path for path, written in newest.items() if not artifacts.is_whole(written)]
