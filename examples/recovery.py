"""A plain script that dies half way, as by kill -9, and goes on from its last checkpoint when it is started again.

python recovery.py my-report      # dies after the second chapter
python recovery.py my-report      # goes on with the third; the first two are neither written nor paid for again
"""

import hashlib
import os
import signal
import sys
from functools import partial
from pathlib import Path

from agentos.core.checkpoints import CheckpointManager, Evidence, EvidenceType
from agentos.core.errors import TaskExists
from agentos.core.idempotency import LLMOutputCache, ToolLedger
from agentos.core.task import TaskManager

CHAPTERS = ("Queues", "Leases", "Checkpoints", "Evidence")


def ask_model(prompt: str) -> str:
    """Here stands the call that costs money."""
    return f"{prompt}: there is much to say."


def append(report: Path, chapter: str, text: str) -> dict[str, str]:
    """The side effect: done twice, the report would have the chapter twice."""
    with report.open("a") as file:
        file.write(f"## {chapter}\n{text}\n")
    return {"sha256": hashlib.sha256(report.read_bytes()).hexdigest()}


def main(task_id: str) -> None:
    try:
        TaskManager().create_task("A report of four chapters", task_id=task_id)
        first_run = True
    except TaskExists:
        first_run = False
    checkpoints, cache, ledger = CheckpointManager(), LLMOutputCache(), ToolLedger()
    report = Path(f"{task_id}.md").absolute()
    last = checkpoints.get_last_verified_checkpoint(task_id)  # its evidence holds: the report is as it was then
    written = last.snapshot["chapters"] if last else 0
    print(f"{written} of {len(CHAPTERS)} chapters are there")

    for number, chapter in enumerate(CHAPTERS[written:], start=written + 1):
        prompt = f"One line about {chapter}"
        text = cache.get_or_generate("chapter", prompt, "stand-in", task_id, partial(ask_model, prompt))
        done = ledger.execute_or_replay("append", chapter, task_id, partial(append, report, chapter, text))
        step = checkpoints.begin_step(task_id, "iteration_end", snapshot={"chapters": number})
        claim = {"path": str(report), "sha256": done["sha256"]}
        checkpoints.commit_step(step, [Evidence(EvidenceType.FILE_SHA256, "the report so far", claim)])
        print(f"wrote {chapter}", flush=True)
        if first_run and number == 2:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "my-report")
