"""What is kept of a model request beside its hash: all of it, each message once, unless the settings say otherwise."""

import os
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from agentos.core.flows.parts import joined
from agentos.store.calls.cache import PromptIdentity, StoredRequest
from agentos.store.calls.timeline import ModelCallRow, model_calls
from agentos.store.canonical import loads
from agentos.store.parts import Parted, part_request
from agentos.store.run import Flow, do
from agentos.store.settings import load_settings

PAGE = 20
"""Model calls read at a time: each may be megabytes."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A recorded model call. `request`: the prompt, or {"prompt", "tools", "parameters"}; None where it was not kept
    (AGENTOS_LLM_KEEP_REQUESTS=false) or is gone. `output`: None while it is under way.
    """

    call_id: str
    item_id: int | None
    operation_type: str
    model: str
    state: str
    created_at: datetime
    prompt_sha256: str
    request: Any
    output: Any


@dataclass(slots=True)
class RequestStore:
    """Forms of one request to send, for a caller who remembers in `known` which parts the task has stored."""

    known: set[str] = field(default_factory=set)

    def form(self, parted: Parted, *, whole: bool) -> StoredRequest:
        """`whole`: with all bodies, because one that was taken for stored is not."""
        names = sorted(parted.parts)
        fresh = {name: parted.parts[name] for name in names if whole or name not in self.known}
        return StoredRequest(parted.text, names, fresh)


def parted_request(prompt: PromptIdentity) -> Parted | None:
    """The request in parts; None: it is not kept."""
    if prompt.asked is None or not _keeps(os.environ.get("AGENTOS_LLM_KEEP_REQUESTS")):
        return None
    return part_request(prompt.asked)


@lru_cache(maxsize=4)
def _keeps(_variable: str | None) -> bool:
    return load_settings().llm_keep_requests  # read once for each value: the settings take a thousand times as long


def recorded_calls(task_id: str, limit: int) -> Flow[tuple[ModelCall, ...]]:
    """The newest `limit` model calls of a task with what was asked and answered, oldest first."""
    found: list[ModelCall] = []
    before: datetime | None = None
    while len(found) < limit:
        rows = yield from do(model_calls(task_id, before, min(PAGE, limit - len(found))))
        for row in rows:
            call = yield from _whole(row)
            found.append(call)
        if len(rows) < PAGE:
            break
        before = rows[-1].created_at
    return tuple(reversed(found))


def _whole(row: ModelCallRow) -> Flow[ModelCall]:
    text = None if row.request_text is None else (yield from joined(row.request_text))
    request, output = (None if each is None else loads(each) for each in (text, row.output_text))
    return ModelCall(
        row.call_id, row.item_id, row.operation_type, row.model, row.state, row.created_at, row.prompt_sha256, request,
        output,
    )  # fmt: skip
