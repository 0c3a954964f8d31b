"""Code that blocks runs in a thread of its own, unless nobody wants it any more."""

from threading import Thread

import pytest

from agentos.worker import threads
from agentos.worker.threads import DaemonThreads


def test_what_was_cancelled_before_its_thread_began_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Thread] = []

    class Late(Thread):
        """One that the test starts."""

        def start(self) -> None:
            made.append(self)

    monkeypatch.setattr(threads, "Thread", Late)
    ran: list[str] = []
    dropped, wanted = (DaemonThreads().submit(ran.append, name) for name in ("dropped", "wanted"))
    assert dropped.cancel()
    for each in made:
        Thread.start(each)
        each.join()
    assert ran == ["wanted"]
    assert wanted.result(0) is None
