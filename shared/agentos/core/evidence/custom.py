"""Evidence types of the app's own: a name, and the function that looks at the world. Known to the whole process."""

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Any

from agentos.core.evidence.claim import Evidence, EvidenceType, custom_types
from agentos.core.evidence.patience import within
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.world import World
from agentos.store.errors import ConfigInvalid

CheckFunction = Callable[[Evidence], Any]
"""What is registered: returns True, False or (bool, reason); may be a coroutine function."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_checks: dict[str, CheckFunction] = {}


def register(name: str, function: CheckFunction) -> None:
    """Make `Evidence(name, ...)` a claim that `function` checks, in this process.

    Raises ConfigInvalid: if the name is no name, one of the built-in types, or another function's.
    """
    if not _NAME.fullmatch(str(name)) or name.upper() in EvidenceType.__members__:
        raise ConfigInvalid(
            f"{name!r:.80} cannot name an evidence type",
            hint="use lower-case letters, digits and _, at most 63, and none of the built-in types",
        )
    known = _checks.get(name)
    if known is not None and _place(known) != _place(function):
        raise ConfigInvalid(f"the evidence type {name!r} is checked by {_place(known)}", hint="use another name")
    _checks[name] = function
    custom_types.add(name)


def custom(evidence: Evidence, world: World) -> str:
    """Why a claim of the app's own holds. Raises Refuted: with why it does not, also if its check raises, answers with
    something else than it may, or takes longer than AGENTOS_EVIDENCE_TIMEOUT_S.
    """
    name = str(evidence.evidence_type)
    function = _checks.get(name)
    if function is None:
        raise Refuted(f'nothing here checks {name} evidence: register it with @app.evidence("{name}")')
    return _judged(
        name, within(world.url_rules().timeout_s, f"{name} evidence", lambda: _asked(name, function, evidence))
    )


def _asked(name: str, function: CheckFunction, evidence: Evidence) -> Any:
    try:
        answer = function(evidence)
        return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer
    except Exception as error:  # the user's code: whatever it raises, the claim was not shown to hold
        raise Refuted(f"the check of {name} evidence raised {type(error).__name__}: {_text(error)}") from error


async def _awaited(answer: Any) -> Any:
    return await answer


def _judged(name: str, answer: object) -> str:
    holds, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
    if not isinstance(holds, bool) or not isinstance(reason, str):
        raise Refuted(f"the check of {name} evidence answered {answer!r:.80}: it returns True, False or (bool, reason)")
    if not holds:
        raise Refuted(reason or f"the check of {name} evidence says no")
    return reason or f"the check of {name} evidence says yes"


def _text(error: Exception) -> str:
    try:
        return str(error)[:500]
    except Exception as broken:  # its __str__ is the user's code too
        return f"its text cannot be had: {type(broken).__name__}"


def _place(function: CheckFunction) -> str:
    """Where it is defined: a module that is imported again registers the same."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"
