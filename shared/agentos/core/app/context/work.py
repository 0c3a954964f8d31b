"""The item's own work: where it stands, what it adds to its task, what the items before it made."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentos.core.app.context.bound import BlockingBound, Bound
from agentos.core.evidence import Evidence, EvidencePack
from agentos.core.tracing.step import step
from agentos.core.transaction import open_transaction
from agentos.store.calls.checkpoints import Committed


class Work(Bound):
    """`ctx.checkpoint`, `ctx.expand`, `ctx.results`."""

    async def checkpoint(
        self, checkpoint_type: str, snapshot: Any, evidence: Sequence[Evidence] | EvidencePack = ()
    ) -> Committed:
        """Commit where the work stands. A later attempt gets `snapshot` back if `evidence` still holds then.

        `checkpoint_type`: one of the eight. Raises InvalidCheckpointType, InvalidValue, ValueTooLarge; LeaseLost: if
        the
        item is another worker's by now.
        """
        with step(f"checkpoint {checkpoint_type}") as this:
            committed = await self._run(self._scope.checkpoint(checkpoint_type, snapshot, evidence))
            this.mark(sequence_number=committed.sequence_number)
        if open_transaction(self._scope) is None:  # inside one it is asked after the COMMIT
            self._guard.after_checkpoint()
            await self._park_if_paused()
        return committed

    async def expand(self, items: Sequence[Mapping[str, Any]]) -> int:
        """Add work items to this task: objects with `key`, `kind` and any of `payload`, `depends_on` (keys of items of
        this task), `queue`, `max_attempts`, `timeout_s`, `version` (default: of
        this worker's handler of the kind). Returns how many were new.

        An item whose key the task already has is left as it is, so a handler that runs again may say the same again.
        Raises InvalidDependency: if an item has no key, or depends on one that the task does not have. LeaseLost,
        TaskCancelled.
        """
        return await self._run(self._scope.expand([self._versioned(item) for item in items]))

    def _versioned(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        handler = self._guard.handler(item.get("kind", ""))
        return item if handler is None else {"version": handler.version, **item}

    async def results(self) -> dict[str, Any]:
        """The results of the items that this one depends on, by their keys, in the order of the plan."""
        return await self._run(self._scope.results())


class BlockingWork(BlockingBound[Work]):
    """The same, blocking."""

    def checkpoint(
        self, checkpoint_type: str, snapshot: Any, evidence: Sequence[Evidence] | EvidencePack = ()
    ) -> Committed:
        """As `TaskContext.checkpoint`."""
        return self._wait(self._context.checkpoint(checkpoint_type, snapshot, evidence))

    def expand(self, items: Sequence[Mapping[str, Any]]) -> int:
        """As `TaskContext.expand`."""
        return self._wait(self._context.expand(items))

    def results(self) -> dict[str, Any]:
        """As `TaskContext.results`."""
        return self._wait(self._context.results())
