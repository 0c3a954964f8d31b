"""One wait, asked once: what the engine is told, and what the handler gets when it is over."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from agentos.core.flows.patience import insist
from agentos.core.parked import Parked
from agentos.store.calls import waits
from agentos.store.calls.items import Fence
from agentos.store.calls.ledger import CallIdentity
from agentos.store.calls.waits import WaitReply
from agentos.store.canonical import canonical, canonical_text
from agentos.store.errors import ApprovalRejected, InvalidInput, WaitTimeout
from agentos.store.run import Call, Flow

NEAR_S = 1.0
"""A time that is nearer is waited for in the slot: to park and to claim again costs two commits and a wake-up."""
SHOWN_LIMIT = 8 * 1024 * 1024


class Waiter(Protocol):
    """What a wait needs to know of the running item."""

    @property
    def fence(self) -> Fence: ...
    def identify(self, name: str, arguments: Any) -> CallIdentity: ...


@dataclass(frozen=True, slots=True)
class Wait:
    """`ask(park)`: the call that waits, and parks if it may. `read(result)`: what the handler gets, or is raised.
    `what`: for people.
    """

    ask: Callable[[bool], Call[WaitReply]]
    read: Callable[[Any], Any]
    what: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person answered: the option chosen (None: the question had none), who, and when."""

    option: str | None
    by: str
    at: datetime


def sleep(scope: Waiter, seconds: float | None, until: datetime | None) -> Wait:
    """Raises InvalidInput: if the time is negative or not finite, or `until` has no time zone."""
    if until is not None and until.tzinfo is None:
        raise InvalidInput(f"sleep_until({until}) has no time zone", hint="say datetime.now(UTC) + timedelta(...)")
    said = {"s": _seconds(seconds)} if until is None else {"until": until.astimezone(UTC).isoformat()}
    identity = scope.identify("@sleep", said)
    return Wait(
        lambda park: waits.wait(
            identity, scope.fence, wake_at=until, timeout_s=_seconds(seconds), near_s=NEAR_S, park=park
        ),
        lambda _: None,
        "sleep",
    )


def wait_for(scope: Waiter, name: str, timeout_s: float | None) -> Wait:
    """Raises InvalidInput: if the name is no text of 1 to 255 characters."""
    if not 1 <= len(name) <= 255:
        raise InvalidInput(f"the signal's name is {name!r:.80}", hint="name it with 1 to 255 characters")
    timeout = _seconds(timeout_s)
    identity = scope.identify("@signal", {"name": name, "timeout_s": timeout})

    def read(result: Any) -> Any:
        if result.get("timed_out"):
            raise WaitTimeout(f"no signal {name!r} came within {timeout:g} s", hint="send it: agentos signal TASK NAME")
        return result["payload"]

    return Wait(
        lambda park: waits.wait(identity, scope.fence, name=name, timeout_s=timeout, near_s=NEAR_S, park=park),
        read,
        f"signal {name}",
    )


def approval(scope: Waiter, question: str, shown: Any, options: Sequence[str] | None, timeout_s: float | None) -> Wait:
    """What is shown is part of the question's identity: an answer counts for exactly that.

    Raises InvalidInput: if the question is empty or the options are not different texts.
    """
    if not question:
        raise InvalidInput(f"the question is {question!r:.80}", hint="ask something a person can answer")
    choices = _options(options)
    body = canonical(shown, limit=SHOWN_LIMIT, what="what is shown")
    sha256 = hashlib.sha256(body).hexdigest()
    timeout = _seconds(timeout_s)
    asked = {"question": question, "shown_sha256": sha256, "options": choices, "timeout_s": timeout}
    identity = scope.identify("@approval", asked)

    def read(result: Any) -> Answer:
        if result.get("timed_out"):
            raise WaitTimeout(f"nobody answered {question!r} within {timeout:g} s", hint="agentos approve TASK")
        if not result["approved"]:
            raise ApprovalRejected(f"{result['by'] or 'a person'} said no to: {question}")
        return Answer(result["option"], result["by"], datetime.fromisoformat(result["at"]))

    return Wait(
        lambda park: waits.ask(
            identity, scope.fence, question, body.decode(), sha256, options=choices, timeout_s=timeout, park=park
        ),
        read,
        "approval",
    )


def park_for(wait: Wait) -> Flow[Any]:
    """Wait with nothing beside it: the result, or Parked."""
    reply = yield from insist(wait.ask(True))
    if reply.verdict == "parked":
        raise Parked
    return wait.read(reply.result)


def _options(options: Sequence[str] | None) -> list[str] | None:
    if options is None:
        return None
    found = [] if isinstance(options, str) else list(options)
    if not found or len(set(found)) != len(found) or not all(found):
        raise InvalidInput(f"the options are {options!r:.80}", hint='pass different texts: options=["now", "later"]')
    canonical_text(found, what="options")
    return found


def _seconds(seconds: float | None) -> float | None:
    if seconds is not None and not 0 <= seconds <= 100 * 366 * 86_400:
        raise InvalidInput(f"{seconds!r} is no time to wait", hint="pass seconds, 0 or more, at most a century")
    return None if seconds is None else float(seconds)
