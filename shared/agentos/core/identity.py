"""Which call is this: sha256 over the canonical form of a tagged list, so that no namespace can meet another.

The tag says who makes the identity: `ToolLedger` (the key of the quick reference: tool, command, task), an item's call
with a key of its own, an item's call by position, a prompt. Every value is refused here, before any side effect, if
JSON cannot hold it.
"""

from hashlib import sha256
from typing import Any

from agentos.store.calls.cache import PromptIdentity
from agentos.store.calls.ledger import CallIdentity
from agentos.store.canonical import canonical, canonical_text, digest

PREVIEW = 200
"""Characters of a prompt kept readable beside its hash."""


def quick_tool_identity(tool_name: str, command: Any, task_id: str) -> CallIdentity:
    """The identity of `ToolLedger.execute_or_replay`: tool, command, task. The same command is the same call.

    Raises InvalidValue, ValueTooLarge: if the command cannot be stored.
    """
    arguments = canonical_text(command, what="command")
    key = digest(["quick-tool", tool_name, command, task_id], what="call")
    return CallIdentity(key, task_id, None, tool_name, None, None, None, arguments)


def tool_identity(
    task_id: str, item_id: int, tool: str, arguments: Any, *, key: str | None, ordinal: int, nth: int | None
) -> CallIdentity:
    """The identity of an item's call: (item, `key`) if a key is given, else its place in the program.

    The place is the item's checkpoint `ordinal`, the tool, its arguments, and that it is the `nth` such call since that
    checkpoint, so that the same command run twice on purpose is two calls.

    Raises InvalidValue, ValueTooLarge: if the arguments or the key cannot be stored.
    """
    text = canonical_text(arguments, what=f"arguments of {tool}")
    return written_identity(task_id, item_id, tool, text, key=key, ordinal=ordinal, nth=nth)


def written_identity(
    task_id: str, item_id: int, tool: str, text: str, *, key: str | None, ordinal: int, nth: int | None
) -> CallIdentity:
    """`tool_identity` of arguments that are canonical already."""
    if key is not None:
        named = digest(["item-key", item_id, key], what="key")
        return CallIdentity(named, task_id, item_id, tool, key, ordinal, None, text)
    name, last = canonical(tool, what="tool"), b"null" if nth is None else b"%d" % nth
    place = sha256(b'["item-place",%d,%d,%b,%b,%b]' % (item_id, ordinal, name, text.encode(), last)).hexdigest()
    return CallIdentity(place, task_id, item_id, tool, None, ordinal, nth, text)


def prompt_identity(
    operation_type: str, prompt: Any, model: str, task_id: str, *, sample: int | str | None = None
) -> PromptIdentity:
    """The identity of a model output: by content. A deliberate second sample says `sample=n`.

    Raises InvalidValue, ValueTooLarge: if the prompt cannot be stored.
    """
    key = digest(["llm", operation_type, prompt, model, task_id, sample], what="prompt")
    text = prompt if isinstance(prompt, str) else canonical_text(prompt, what="prompt")
    return PromptIdentity(
        key, task_id, operation_type, model, sha256(text.encode()).hexdigest(), text[:PREVIEW], asked=prompt
    )
