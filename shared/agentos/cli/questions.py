"""Which question a person means: by number, by how its id begins, or the only one that is open."""

from collections.abc import Sequence

from agentos.cli.output import compact, err, print_json, print_table
from agentos.store.calls.checkpoints import require_item
from agentos.store.calls.timeline import Approval, task_approvals
from agentos.store.connect import Database
from agentos.store.errors import InvalidInput, NotRetryable, SeveralQuestions


def questions_of(db: Database, task: str) -> tuple[Approval, ...]:
    """All that the task has asked, oldest first: a question's number is its place there. Raises UnknownTask."""
    db.run(require_item(task, None))
    return db.run(task_approvals(task))


def chosen_question(task: str, asked: Sequence[Approval], which: str | None, question: str | None) -> str:
    """The id of the question that is meant. Raises SeveralQuestions, NotRetryable, InvalidInput."""
    if which is not None and question is not None:
        raise InvalidInput("the question is named twice", hint="give QUESTION, or --question ID")
    named = question if which is None else which
    if named is None:
        found = [each for each in asked if each.open]
    elif which is not None and which.isdecimal() and 1 <= int(which) <= len(asked):
        found = [asked[int(which) - 1]]
    else:
        found = [each for each in asked if each.question_id.startswith(named.lower())]
        found = [each for each in found if each.open] or found
    if len(found) > 1:
        raise SeveralQuestions(
            f"{len(found)} questions of task {task} are open" + (f" under {named}" if named else ""),
            hint=f"say which, by number or by how its id begins: agentos approve {task} {asked.index(found[0]) + 1}",
            detail=_lines(asked, found),
        )
    if not found:
        what = f" with the number or id {named}" if named else " that is open"
        raise NotRetryable(
            f"task {task} has no question{what}", hint=f"see what it has asked: agentos approve {task} --list",
            detail=_lines(asked, asked),
        )  # fmt: skip
    if not found[0].open:
        raise NotRetryable(
            f"{compact(found[0].question, 200)}: {_said(found[0])}", hint=f"agentos approve {task} --list"
        )
    return found[0].question_id


def _lines(asked: Sequence[Approval], found: Sequence[Approval]) -> str | None:
    lines = [
        f"{n}. {each.question_id[:8]} {compact(each.question, 200)}"
        + (f" ({' | '.join(each.options)})" if each.options else "") + ("" if each.open else f": {_said(each)}")
        for n, each in enumerate(asked, 1) if each in found
    ]  # fmt: skip
    return "\n".join(lines) or None


def _said(each: Approval) -> str:
    if each.open:
        return "open"
    if each.approved is None:
        return "was not answered"
    return f"was answered {(each.option or 'yes') if each.approved else 'no'} by {each.answered_by}"


def print_questions(task: str, asked: Sequence[Approval], *, as_json: bool) -> None:
    """All of them, with their numbers."""
    if as_json:
        told = [{"number": n, "question": each} for n, each in enumerate(asked, 1)]
        return print_json({"task_id": task, "questions": told})
    if not asked:
        return err.print(f"{task} has asked nothing")
    rows = [
        (
            n,
            each.question_id[:8],
            compact(each.question, 200),
            " | ".join(each.options or ()),
            _said(each),
            each.asked_at,
        )
        for n, each in enumerate(asked, 1)
    ]
    return print_table(("number", "id", "question", "options", "state", "asked"), rows, title=f"Questions of {task}")
