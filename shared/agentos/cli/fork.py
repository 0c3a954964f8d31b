"""`agentos fork`: a new task that begins at a checkpoint of another one."""

from typing import Annotated

import typer

from agentos.cli.database import opened
from agentos.cli.options import AsJson, Dsn, TaskId
from agentos.cli.output import err, out, print_json
from agentos.cli.rewind import print_calls, stubs
from agentos.core.fork import Fork
from agentos.core.fork import fork as make_fork
from agentos.store.run import drive


def fork(  # noqa: PLR0913  one argument for each option
    task: TaskId,
    *,
    from_seq: Annotated[
        int, typer.Option("--from", metavar="SEQ", min=0, help="The checkpoint's number; 0: the beginning.")
    ],
    task_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the new task; with it, saying it again makes no second one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what has happened and what would become of it.")
    ] = False,
    replay: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Its recorded calls replay (so do those not named).")
    ] = None,
    re_execute: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Its calls are executed again, under new idempotency keys.")
    ] = None,
    stub: Annotated[
        list[str] | None, typer.Option(metavar="TOOL=JSON", help="Its recorded calls return this instead.")
    ] = None,
    new_outputs: Annotated[
        bool, typer.Option("--new-outputs", help="Ask models again, and pay, instead of using what they answered TASK.")
    ] = False,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who wants it (default: your user name).")] = None,
    dsn: Dsn = None,
    json: AsJson = False,
) -> None:
    """Make a new task that begins at a checkpoint of TASK, which stays as it is, whether it has ended or goes on.

    What was recorded before the checkpoint is carried over. Of the calls after it, the recorded ones replay when the
    new task makes them too, unless --re-execute or --stub says otherwise; what TASK does from now on it does for
    itself, and the new task does it again. Try --dry-run first: it lists every effect that has happened.

    \b
    Examples:
      agentos fork task-123 --from 4 --dry-run
      agentos fork task-123 --from 4 --re-execute bash --stub charge='{"charged": 1}'
      agentos fork task-123 --from 0 --new-outputs --task-id task-123-again
      agentos show task-123      first: which checkpoints are there?
    """
    with opened(dsn) as db:
        flow = make_fork(
            task, from_seq, fork_id=task_id, dry_run=dry_run, replay=replay or (), re_execute=re_execute or (),
            stub=stubs(stub or []), new_outputs=new_outputs, by=by,
        )  # fmt: skip
        told = drive(db, flow)
    if json:
        print_json(told)
    else:
        _print(told)


def _print(told: Fork) -> None:
    print_calls(told.calls, f"Calls of {told.from_task}, and what becomes of them in the fork")
    if not told.calls:
        err.print(f"{told.from_task} has recorded no call")
    if told.done:
        out.print(
            f"{told.task_id} begins at checkpoint {told.from_seq} of {told.from_task}: {len(told.items)} open item(s)"
        )
        return
    out.print(f"nothing was made; it would have {len(told.items)} open item(s)")
    out.print("recorded calls replay unless --re-execute TOOL or --stub TOOL=JSON says otherwise")
