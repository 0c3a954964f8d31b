"""Turns the task's events into lines for people, each told once."""

import os
from pathlib import Path

from agentos.demo.view import View
from agentos.demo.watch import Look
from agentos.store.calls.timeline import Event


class Narrator:
    """`tell(look)` says what is new since the last look."""

    def __init__(self, view: View, folder: Path) -> None:
        self._view = view
        self._folder = f"{folder}{os.sep}"
        self._told = 0
        self._workers: dict[int, str] = {}

    def tell(self, look: Look) -> None:
        """Say it."""
        for worker in look.workers:
            before = self._workers.get(worker.worker_id)
            self._workers[worker.worker_id] = worker.state
            if worker.state == "dead" and before != "dead":
                self._view.say(f"{worker.label} is declared dead: no beat within {worker.ttl_s:g} s", "bold red")
        for event in look.events[self._told :]:
            self._event(look, event)
        self._told = len(look.events)

    def _event(self, look: Look, event: Event) -> None:
        item, worker = look.name_of(event.item_id), look.label_of(event.worker_id)
        match event.event:
            case "lease_reclaimed":
                self._view.say(f"lease taken back from {worker}: {item}", "yellow")
            case "checkpoint_superseded":
                self._view.say(f"{item}: checkpoint #{event.data['sequence_number']} rejected", "bold magenta")
                self._view.say(f"    {event.data['reason'].replace(self._folder, '')}", "magenta")
            case "resumed":
                self._view.say(f"{item} goes on from checkpoint #{event.data['sequence_number']} in {worker}", "green")
            case "attempt_failed":
                self._view.say(f"{item}: {event.data.get('message', 'failed')}; it is tried again", "bold red")
            case other:
                self._view.say(f"{item}: {other}")
