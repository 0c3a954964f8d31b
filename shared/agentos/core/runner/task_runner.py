"""`TaskRunner`: plan a task, run its items under leases, checkpoint them, finish it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from agentos.core.checkpoints import Checkpoint, CheckpointManager
from agentos.core.evidence import EvidencePack, PackVerdict
from agentos.core.idempotency import LLMOutputCache, ToolLedger
from agentos.core.kinds import (
    KINDS,
    adopt,
    decision,
    done_before,
    evidence_of,
    finished_snapshot,
    make_items,
    plan_prompt,
)
from agentos.core.lease import Lease, holding
from agentos.core.llm import STAND_IN_MODEL, Completion, client_from_settings
from agentos.core.logs import get_logger
from agentos.core.parked import Parked
from agentos.core.plan import stand_in_plan_json
from agentos.core.runner import ending
from agentos.core.runner.direct import DirectScope
from agentos.core.runner.outcome import TaskOutcome, outcome_of
from agentos.core.runner.turns import Turns
from agentos.core.scope import ItemScope
from agentos.core.verification import verifier
from agentos.core.worker_pool import WorkItemLease
from agentos.store.calls import checkpoints, items, tasks
from agentos.store.calls.checkpoints import CheckpointRow
from agentos.store.calls.items import EPOCH, ClaimedItem
from agentos.store.calls.tasks import TaskRow
from agentos.store.canonical import canonical_text
from agentos.store.connect import Database
from agentos.store.errors import (
    AgentOSError,
    ConfigInvalid,
    ContentSealed,
    DatabaseUnavailable,
    InvalidInput,
    LeaseLost,
    TaskCancelled,
    UnknownKind,
    UnknownTask,
    WorkerDead,
)
from agentos.store.run import drive
from agentos.store.settings import Settings, load_settings

log = get_logger(__name__)


class TaskRunner:
    """Runs tasks in this process; no worker and no coordinator is needed. One run at a time per runner.

    `enable_recovery` (default no): checkpoints, the LLM cache and the tool ledger are used; without it only how items
    end is recorded. `use_real_pipeline` (default no): plan with the model of AGENTOS_LLM_*, otherwise with the
    stand-in; the items run on the normal tool path either way. `auto_approve` (default no): run a real model's plan
    without asking a person.
    """

    def __init__(
        self, enable_recovery: bool = False, use_real_pipeline: bool = False, *, auto_approve: bool = False,
        db: Database | None = None, settings: Settings | None = None,
    ) -> None:  # fmt: skip
        """Raises ConfigInvalid: if `use_real_pipeline` is asked for and AGENTOS_LLM_* is not set."""
        self.enable_recovery = enable_recovery
        self.use_real_pipeline = use_real_pipeline
        self.auto_approve = auto_approve
        self._settings = settings or load_settings()
        self._client = client_from_settings(self._settings) if use_real_pipeline else None
        self._db = db or Database.default(settings)
        self.checkpoint_manager = CheckpointManager(self._db, may_rerun=True) if enable_recovery else None
        self.llm_cache = LLMOutputCache(self._db) if enable_recovery else None
        self.tool_ledger = ToolLedger(self._db, may_rerun=True) if enable_recovery else None
        self._turns = Turns(self._db, self._settings)
        self._resume_points: dict[str, tuple[Checkpoint, int]] = {}

    # -- running a task ------------------------------------------------------------------------------------------

    def run_task(self, task_id: str, max_iterations: int = 100) -> TaskOutcome:
        """Run the task to its end: plan it if it has no items, then its items, waiting for scheduled retries.

        A task that has ended is left alone. An iteration is one attempt at an item, or one wait; when they are used up
        the task fails, and its checkpoints are kept. A task that waits for a person is returned as waiting.

        Raises UnknownTask. UnknownKind: if it has items that need a worker with an app; nothing is claimed then.
        TaskHeld: if a living worker holds an item of it. QueuePaused: if its queue is; it waits for limits.
        DatabaseUnavailable: the task is where its records say.
        """
        if max_iterations < 1:
            raise InvalidInput(f"max_iterations is {max_iterations}", hint="pass 1 or more; the default is 100")
        progress = self._db.run(tasks.task_progress(task_id))
        if progress.ended:
            return outcome_of(self._db, task_id, progress)
        self._require_kinds(task_id, progress.kinds)
        task = self._db.run(tasks.get_task(task_id))
        if task is None:
            raise UnknownTask(f"no task has the id {task_id!r}", hint="it was removed just now")
        with self._turns.present():
            ran = self._iterate(task, max_iterations)
        point = self._resume_points.pop(task_id, None)
        resumed = point[0].checkpoint_id if point else None
        progress = self._db.run(tasks.task_progress(task_id))
        return outcome_of(self._db, task_id, progress, items_run=ran, resumed_from=resumed)

    def run_with_recovery(self, task_id: str, max_iterations: int = 100) -> TaskOutcome:
        """`run_task` from the newest checkpoint whose evidence holds now, on this host; if there is one.

        Raises ConfigInvalid: if the runner was made without recovery; otherwise as `run_task`.
        """
        if self.checkpoint_manager is None:
            raise ConfigInvalid("this runner was made without recovery", hint="TaskRunner(enable_recovery=True)")
        if not self._db.run(tasks.task_progress(task_id)).ended:
            last_checkpoint = self.checkpoint_manager.get_last_verified_checkpoint(task_id)
            if last_checkpoint:
                self.resume_from_checkpoint(task_id, last_checkpoint)
        return self.run_task(task_id, max_iterations)

    def resume_from_checkpoint(self, task_id: str, checkpoint: Checkpoint) -> None:
        """Let the next `run_task` of this task go on from this checkpoint: what its items checkpointed later is marked
        superseded when they are claimed. Nothing is written before that.

        Raises CheckpointInvalid: if it does not hold now. InvalidInput: if it is another task's.
        """
        if self.checkpoint_manager is None:
            raise ConfigInvalid("this runner was made without recovery", hint="TaskRunner(enable_recovery=True)")
        if checkpoint.task_id != task_id:
            raise InvalidInput(
                f"checkpoint {checkpoint.checkpoint_id} is not one of task {task_id}",
                hint=f"get_last_verified_checkpoint({task_id!r})",
            )
        verified = self.checkpoint_manager.rollback_to_checkpoint(checkpoint.checkpoint_id)
        newest = self._db.run(checkpoints.checkpoints_before(task_id, limit=1))
        self._resume_points[task_id] = (verified, newest[0].sequence_number if newest else verified.sequence_number)
        log.info("resuming", task_id=task_id, checkpoint_id=verified.checkpoint_id)

    def _iterate(self, task: TaskRow, max_iterations: int) -> int:
        ran = 0
        for _ in range(max_iterations):
            turn = self._turns.next(task.task_id)
            if turn.over:
                return ran
            self._require_kinds(task.task_id, turn.kinds)
            item = self._turns.claim(task.task_id)
            if item is not None:
                ran += 1
                self._run_item(task, item)
            elif not self._turns.wait(task.task_id):
                return ran
        if not self._db.run(tasks.task_progress(task.task_id)).ended:
            reason = f"not done after {max_iterations} iterations (max_iterations={max_iterations})"
            self._db.run(tasks.give_up(task.task_id, self._turns.worker_id, reason))
        return ran

    def _require_kinds(self, task_id: str, kinds: Sequence[str]) -> None:
        if unknown := sorted(set(kinds) - KINDS.keys()):
            raise UnknownKind(
                f"task {task_id} has items of kind {', '.join(unknown)}, which only a worker with an app can run",
                hint="agentos-worker --app module:app",
            )

    def _run_item(self, task: TaskRow, item: ClaimedItem) -> None:
        """One attempt at an item, and what is written about its end."""
        lease = Lease(item.fence(self._turns.worker_id), item.task_id, item.attempt, item.queue, item.kind)
        with holding(lease):
            try:
                if item.cancelled:
                    raise TaskCancelled("the task was cancelled before the item ran")
                if item.paused and self._db.run(items.park_paused(lease.fence)):
                    raise Parked
                output = self._execute_stage(task, item)
                drive(self._db, ending.complete(lease.fence, canonical_text(output, what="result")))
            except (LeaseLost, WorkerDead) as lost:
                log.warning("lease lost; another process goes on with the item", key=item.key, error=lost.message)
            except Parked:
                log.info("parked: it waits for a person", key=item.key)
            except (DatabaseUnavailable, ContentSealed):  # no fault of the item's: the caller hears of it
                self._give_back(lease)
                raise
            except Exception as exc:
                self._write_failure(item, lease, exc)
            except BaseException:
                self._give_back(lease)
                raise

    def _write_failure(self, item: ClaimedItem, lease: Lease, exc: Exception) -> None:
        try:
            became = drive(self._db, ending.fail(lease.fence, exc))
        except LeaseLost:
            became = "somebody else's"
        log.warning("attempt failed", key=item.key, error=str(exc), error_type=type(exc).__name__, item_became=became)

    def _give_back(self, lease: Lease) -> None:
        """Interrupted, or the database went away: the item is free at once, and nothing is charged."""
        try:
            drive(self._db, ending.release(lease.fence))
        except AgentOSError as exc:
            log.warning("an item could not be given back; its lease runs out", error=exc.message)

    # -- stages --------------------------------------------------------------------------------------------------

    def _execute_stage(self, task: TaskRow, item: ClaimedItem) -> Any:
        """Planning for a plan item, else the execution of the item. Returns the item's output."""
        if item.kind != "plan":
            return self._execute_work_items_serial(task.task_id, [item])[0]
        scope = self._scope(item, self._lease_on(item))
        if done_before("plan", scope.snapshot):
            return scope.snapshot["output"]
        decided = drive(self._db, decision(scope))
        if decided is not None:
            return self._planned(item, scope, drive(self._db, make_items(scope, decided)))
        nl_request = plan_prompt({"input": task.payload, **item.payload})
        if self.enable_recovery and self.llm_cache:
            pipeline_result = self._generate_plan_with_cache(task, nl_request)
        else:
            pipeline_result = self._generate_plan_direct(task, nl_request)
        approved = not self.use_real_pipeline or self.auto_approve or bool(item.payload.get("auto_approve"))
        return self._planned(item, scope, drive(self._db, adopt(scope, pipeline_result, approved=approved)))

    def _planned(self, item: ClaimedItem, scope: ItemScope | DirectScope, output: Any) -> Any:
        evidence = self.collect_evidence(item, output)
        drive(self._db, scope.checkpoint("state_transition", finished_snapshot("plan", output), evidence))
        return output

    def _generate_plan_with_cache(self, task: TaskRow, nl_request: str) -> str:
        """The planner's answer, paid for once per task and prompt."""
        if self.llm_cache is None:
            return self._generate_plan_direct(task, nl_request)
        model = self._client.model if self._client else STAND_IN_MODEL
        answer: str = self.llm_cache.get_or_generate(
            "plan", nl_request, model, task.task_id, lambda: self._ask_planner(nl_request)
        )
        return answer

    def _generate_plan_direct(self, task: TaskRow, nl_request: str) -> str:
        """The planner's answer, asked now."""
        answer = self._ask_planner(nl_request)
        return answer.text if isinstance(answer, Completion) else answer

    def _ask_planner(self, nl_request: str) -> Completion | str:
        self._turns.wait_for_trust()
        return self._client.complete(nl_request) if self._client else stand_in_plan_json(nl_request)

    def _execute_work_items_serial(self, task_id: str, work_items: Sequence[ClaimedItem]) -> list[Any]:
        """Items that are held, one after the other; their outputs."""
        outputs = []
        for work_item in work_items:
            if self.enable_recovery:
                output = self.execute_work_item_with_checkpoint(task_id, work_item)
            else:
                output = self._execute_single_work_item(task_id, work_item)
            outputs.append(output)
        return outputs

    def execute_work_item_with_checkpoint(self, task_id: str, work_item: ClaimedItem | WorkItemLease) -> Any:
        """Do the work of a held item from its last checkpoint that holds, and checkpoint its output with evidence.

        `work_item`: also what `LeaseManager.acquire_lease` gave; releasing it stays with its holder. Returns the
        output. Raises ConfigInvalid: if the runner was made without recovery. UnknownKind, LeaseLost; whatever the
        work raises.
        """
        if not self.enable_recovery:
            raise ConfigInvalid("this runner was made without recovery", hint="TaskRunner(enable_recovery=True)")
        item, lease = self._held(task_id, work_item)
        with holding(lease):
            scope = self._scope(item, lease)
            if done_before(item.kind, scope.snapshot):
                return scope.snapshot["output"]
            kind = KINDS[item.kind]
            output = drive(self._db, kind.perform(scope, item.payload))
            evidence = self.collect_evidence(work_item, output)
            snapshot = finished_snapshot(item.kind, output)
            drive(self._db, scope.checkpoint(kind.checkpoint_type, snapshot, evidence))
        return output

    def _execute_single_work_item(self, task_id: str, work_item: ClaimedItem | WorkItemLease) -> Any:
        """Do the work of a held item from its beginning; nothing is recorded."""
        item, lease = self._held(task_id, work_item)
        with holding(lease):
            return drive(self._db, KINDS[item.kind].perform(self._scope(item, lease), item.payload))

    def collect_evidence(
        self, work_item: ClaimedItem | WorkItemLease | Mapping[str, Any], results: Any
    ) -> EvidencePack:
        """What can be checked again about a work item that gave these results: the evidence it declares; for a command
        without any, its exit code. `work_item`: also a dict with kind and payload. Raises InvalidEvidence.
        """
        if isinstance(work_item, Mapping):
            return evidence_of(work_item.get("kind", "shell"), work_item.get("payload") or work_item, results)
        return evidence_of(work_item.kind, work_item.payload, results)

    # -- what an item runs with ----------------------------------------------------------------------------------

    def _held(self, task_id: str, work_item: ClaimedItem | WorkItemLease) -> tuple[ClaimedItem, Lease]:
        item = as_claimed(work_item) if isinstance(work_item, WorkItemLease) else work_item
        self._require_kinds(task_id, [item.kind])
        if item.task_id != task_id:
            raise InvalidInput(f"item {item.item_id} is not one of task {task_id}", hint="pass the item's own task_id")
        if isinstance(work_item, WorkItemLease):
            return item, Lease(work_item.fence, item.task_id, item.attempt)
        return item, self._lease_on(item)

    def _lease_on(self, item: ClaimedItem) -> Lease:
        return Lease(item.fence(self._turns.worker_id), item.task_id, item.attempt)

    def _scope(self, item: ClaimedItem, lease: Lease) -> ItemScope | DirectScope:
        tools = self._turns.tools()
        if not self.enable_recovery:
            return DirectScope(item, lease, tools, self._db)
        verify = verifier(self._db, item.task_id, may_rerun=True)

        def verify_row(row: CheckpointRow) -> PackVerdict:
            point = self._resume_points.get(item.task_id)
            if point and point[0].sequence_number < row.sequence_number <= point[1]:
                return PackVerdict(False, [], f"later than {point[0].checkpoint_id}, which the run resumes from")
            return verify.row(row)

        scope = ItemScope(item, lease, verify_row=verify_row, verify=verify.evidence, tools=tools)
        if item.attempt > 1:
            drive(self._db, scope.resume())
        return scope


def as_claimed(lease: WorkItemLease) -> ClaimedItem:
    """A lease's item as the engine hands it out."""
    return ClaimedItem(
        item_id=lease.work_item_id, token=lease.fence.token, lane=0, attempt=lease.attempt, failures=lease.failures,
        crashes=lease.crashes, claimed_us=(lease.acquired_at - EPOCH) // timedelta(microseconds=1),
        task_id=lease.task_id, seq=0, key=lease.key, queue=lease.queue, kind=lease.kind, payload=lease.payload,
        max_attempts=lease.max_attempts, timeout_s=lease.timeout_s, cancelled=False, paused=False,
    )  # fmt: skip
