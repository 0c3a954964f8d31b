"""`LLMOutputCache`: the same prompt of the same task is generated once, whoever asks, wherever it runs."""

import threading
from collections.abc import Callable
from typing import Any

from agentos.core.flows.model import generate_once
from agentos.core.idempotency.joining import caller, check_seconds
from agentos.core.identity import prompt_identity
from agentos.store.calls.cache import cache_invalidate
from agentos.store.connect import Database
from agentos.store.run import drive

LLM_EXPIRES_S = 7 * 86_400
"""Seconds for which an output is used for callers without a lease: 7 days."""


class LLMOutputCache:
    """Model outputs by operation, prompt, model and task. Safe for threads; single-flight across threads, processes
    and hosts. `expires_in_seconds`: default 7 days; the outputs of a running item never expire for it.
    """

    def __init__(self, db: Database | None = None, *, expires_in_seconds: float = LLM_EXPIRES_S) -> None:
        """Raises InvalidInput: if `expires_in_seconds` is not above 0."""
        self._expires_s = check_seconds("expires_in_seconds", expires_in_seconds)
        self._db = db or Database.default()
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def get_or_generate(
        self, operation_type: str, prompt: Any, model: str, task_id: str, generate_fn: Callable[[], Any], *,
        expires_in_seconds: float | None = None, sample: int | str | None = None,
    ) -> Any:  # fmt: skip
        """The output, any JSON value, of the record or of `generate_fn()`. While somebody alive generates it, waits.

        `sample` tells a deliberate second output of the same prompt from the first. What `generate_fn` raises is
        raised, and never cached. Raises UnknownTask: if there is no such task. InvalidValue, ValueTooLarge: if the
        prompt or the output cannot be stored.
        """
        expires_s = self._expires_s
        if expires_in_seconds is not None:
            expires_s = check_seconds("expires_in_seconds", expires_in_seconds)
        identity = prompt_identity(operation_type, prompt, model, task_id, sample=sample)
        lease, worker_id = caller(self._db, task_id)
        cached = False
        try:
            made = drive(self._db, generate_once(identity, lease, worker_id, generate_fn, expires_s=expires_s))
            cached = made.cached
        finally:
            self._count(cached)
        return made.output

    def _count(self, cached: bool) -> None:
        with self._lock:
            self._hits += cached
            self._misses += not cached

    def invalidate(
        self, operation_type: str, prompt: Any, model: str, task_id: str, *, sample: int | str | None = None
    ) -> bool:
        """Forget an output: the next call generates. False: there was none."""
        identity = prompt_identity(operation_type, prompt, model, task_id, sample=sample)
        return self._db.run(cache_invalidate(identity.key))

    def get_stats(self) -> dict[str, Any]:
        """hits, misses, total_requests and hit_rate (0.0 to 1.0) of this instance since it was made or reset."""
        with self._lock:
            hits, misses = self._hits, self._misses
        total = hits + misses
        rate = hits / total if total else 0.0
        return {"hits": hits, "misses": misses, "total_requests": total, "hit_rate": rate}

    def reset_stats(self) -> None:
        """Begin to count at zero."""
        with self._lock:
            self._hits = self._misses = 0
