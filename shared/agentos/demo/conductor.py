"""The conductor: sets the stage, starts the processes, kills one, watches to the end, and counts."""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import FrameType

from rich.console import Console

from agentos.core.evidence import default_roots
from agentos.demo import distributions
from agentos.demo.expected import effects_of
from agentos.demo.narrator import Narrator
from agentos.demo.options import Options
from agentos.demo.processes import Cast, Process
from agentos.demo.sabotage import Strike, strike
from agentos.demo.stage import Kill, Notes, write_notes
from agentos.demo.summary import Summary, summarise
from agentos.demo.view import View, open_view
from agentos.demo.watch import Look, Watch
from agentos.store.calls import tasks
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database, open_target
from agentos.store.errors import AgentOSError, ConfigInvalid, DemoFailed
from agentos.store.settings import Settings, load_settings

WORKERS, CONCURRENCY = 2, 8
START_S = 60.0
LOOK_S = 0.1
PACED_TOTAL_S = 30.0
"""With very many distributions the pauses are shorter, so that all of them take no longer than this."""


class Conductor:
    """One run. `run()` returns the summary."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.settings: Settings = load_settings(dsn=options.dsn)
        self.task_id = f"demo-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"  # noqa: DTZ005  a name for people
        self.folder = options.out or self.settings.artifact_folder / "demo" / self.task_id
        self.listed = distributions.installed(options.limit)
        self._console = console

    def run(self) -> Summary:
        """Everything.

        Raises DatabaseError: if there is no database. DemoFailed: if the processes do not do their part.
        """
        _require_posix()
        self._began = time.monotonic()
        open_target(self.settings, may_migrate=self.options.migrate)
        self.folder = _empty_folder(self.folder)
        self._introduce()
        self.watch = Watch(Database.default(self.settings), self.task_id, self.task_id)
        try:
            with Cast(self.folder, self._environment()) as cast:
                view = open_view(self._console, plain=self.options.plain)
                try:
                    struck = self._perform(cast, view)
                finally:
                    view.close()
                    self._cancel_if_open()  # what runs is told
        finally:
            self._cancel_if_open()  # what was handed back ends
        records = self.watch.records()
        seconds = time.monotonic() - self._began
        return summarise(
            self.task_id, seconds, self.folder, struck, self.watch.look(), records, effects_of(self.listed)
        )  # fmt: skip

    def _introduce(self) -> None:
        files = distributions.total_files(self.listed)
        where = "your own database" if self.settings.dsn else f"the embedded database in {self.settings.data_dir}"
        model = self.settings.llm_model or "a stand-in"
        for line in (
            f"Audit of {len(self.listed)} distributions, {files:,} files, on {where}: {WORKERS} workers with "
            f"{CONCURRENCY} items each, and a coordinator.",
            f"A worker counts as dead after {self.options.ttl_s:g} s without a beat here, so that you do not have to "
            "wait; elsewhere it is 15 s.",
            f"One-line summaries by {model}.",
            f"output folder: {self.folder}",
        ):
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    # -- the performance --

    def _perform(self, cast: Cast, view: View) -> Strike | None:
        workers = self._start(cast)
        self._until_present(cast, workers)
        view.say("two workers and a coordinator are up")
        self._submit()
        narrator, struck = Narrator(view, self.folder), None
        deadline = time.monotonic() + self.options.timeout_s
        while True:
            look = self.watch.look()
            view.show(look)
            narrator.tell(look)
            if look.progress.ended:
                return struck
            if time.monotonic() > deadline:
                view.say(f"not done after {self.options.timeout_s:g} s; see the logs in {self.folder}", "bold red")
                return struck
            _require_running(cast, struck)
            if struck is None and _in_the_middle(look):
                struck = self._strike(workers, view)
            time.sleep(LOOK_S)

    def _start(self, cast: Cast) -> list[Process]:
        ttl = ("--ttl", str(self.options.ttl_s))
        cast.start("coordinator", "agentos.coordinator", *ttl, "--sweep", "0.5")
        args = (
            "--app", "agentos.demo.app:app", "--queue", self.task_id, "--concurrency", str(CONCURRENCY), *ttl,
            "--poll", "0.25", "--grace", "2",
        )  # fmt: skip
        names = [f"worker-{n}" for n in range(1, WORKERS + 1)]
        workers = [cast.start(name, "agentos.worker", *args, "--label", name) for name in names]
        self._notes = Notes({worker.pid: worker.name for worker in workers})
        write_notes(self.folder, self._notes)
        return workers

    def _until_present(self, cast: Cast, workers: list[Process]) -> None:
        deadline = time.monotonic() + START_S
        while {worker.pid for worker in workers} - {row.pid for row in self.watch.present()}:
            _require_running(cast, None)
            if time.monotonic() > deadline:
                raise DemoFailed(f"the workers did not appear within {START_S:g} s", hint=f"see {workers[0].log}")
            time.sleep(LOOK_S)

    def _submit(self) -> None:
        payload = {"folder": str(self.folder), "pace_s": self._pace_s(), "limit": self.options.limit}
        text = canonical_text(payload, what="payload")
        title = "Audit of this Python environment"
        self.watch.db.run(tasks.submit(self.task_id, "audit.plan", title, text, queue=self.task_id))

    def _pace_s(self) -> float:
        return min(self.options.pace_s, PACED_TOTAL_S * CONCURRENCY / max(len(self.listed), 1))

    def _strike(self, workers: list[Process], view: View) -> Strike | None:
        done = strike(self.watch, workers, quiet=self.settings.llm_base_url is None)
        if done is not None:
            kill = Kill(done.worker, done.pid, done.at, done.victim_name, done.artifact.name)
            self._notes = replace(self._notes, kill=kill)
            write_notes(self.folder, self._notes)
            view.say(f"SIGKILL for {done.worker} (pid {done.pid}), which holds {len(done.held)} items", "bold red")
            view.say(
                f"one byte changed in {done.artifact.name}, for which checkpoint #{done.sequence_number} of "
                f"{done.victim_name} vouches", "bold red",
            )  # fmt: skip
        return done

    def _cancel_if_open(self) -> None:
        """Interrupted, or out of time: nobody else serves this queue, so the task must not stay open."""
        with suppress(AgentOSError):
            self.watch.db.run(tasks.cancel_task(self.task_id, "the demo was stopped"))

    def _environment(self) -> dict[str, str]:
        roots = (*default_roots(self.settings), self.folder)
        env = {**os.environ, "AGENTOS_EVIDENCE_ROOTS": os.pathsep.join(str(root) for root in roots)}
        env.pop("AGENTOS_TTL_S", None)  # their own would have to fit the beat and the TTL of the demo
        env.pop("AGENTOS_BEAT_S", None)
        return {**env, "AGENTOS_DSN": self.settings.dsn} if self.settings.dsn else env


def _in_the_middle(look: Look) -> bool:
    """A third is done; or of few, which are all begun at once, any."""
    begun_at_once = WORKERS * CONCURRENCY
    done = sum(item.status == "completed" for item in look.audits)
    return bool(look.audits) and done >= min(len(look.audits) // 3, max(len(look.audits) - begun_at_once, 0))


def _require_running(cast: Cast, struck: Strike | None) -> None:
    for process in cast.everybody:
        if process.ended() and (struck is None or process.pid != struck.pid):
            raise DemoFailed(f"{process.name} ended by itself", hint=f"see {process.log}", detail=process.last_words())


def _require_posix() -> None:
    if not hasattr(signal, "SIGSTOP"):
        raise ConfigInvalid(
            "the demo freezes and kills processes, which needs POSIX signals", hint="use Linux or macOS"
        )


def _empty_folder(folder: Path) -> Path:
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigInvalid(f"--out {folder} is not an empty folder", hint="name one that is not there yet")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()  # evidence follows no symbolic link


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that everything that was started is stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
