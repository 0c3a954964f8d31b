"""Which request is this: told from all that means something else, and from nothing that means the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4

from agentos.core.identity import PREVIEW, prompt_identity
from agentos.store.calls.cache import PromptIdentity
from agentos.store.canonical import canonical, canonical_text, digest
from agentos.store.errors import InvalidInput

OUTPUT_TOKENS = 1024
"""Tokens that an answer is taken to have, before the call, when its parameters set no maximum."""
BYTES_PER_TOKEN = 3
"""Few enough that a prompt is rarely longer in tokens than it is taken to be."""
_MAXIMA = ("max_completion_tokens", "max_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What is asked: `prompt` is a text or a list of messages; `tools` a list; `parameters` such as temperature.

    `scope` says who shares the output: `task` (the default), `tenant:NAME`, `shared` (all tasks), or `off` (nobody:
    it is asked again each time, and only counted). `sample` tells a deliberate second output from the first.
    """

    operation_type: str
    prompt: Any
    model: str
    tools: Sequence[Mapping[str, Any]] = ()
    parameters: Mapping[str, Any] | None = None
    scope: str = "task"
    sample: int | str | None = None

    @property
    def is_plain(self) -> bool:
        """A prompt and nothing else: what `LLMOutputCache` knows, too."""
        return not self.tools and not _present(self.parameters)

    @property
    def asked(self) -> Any:
        """The request in one form: absent and null are the same for a field of a message, of a tool, a parameter."""
        prompt = [_message(each) for each in self.prompt] if isinstance(self.prompt, list | tuple) else self.prompt
        if self.is_plain:
            return prompt
        tools = [_tool(each) for each in self.tools]
        return {"prompt": prompt, "tools": tools, "parameters": _present(self.parameters)}

    def identity(self, task_id: str) -> PromptIdentity:
        """The identity of its output for a task: by content, whatever the order of keys and the form of numbers.

        Raises InvalidInput: if the scope is none of the four. InvalidValue, ValueTooLarge: if it cannot be stored.
        """
        kind, _, name = self.scope.partition(":")
        if self.scope not in ("task", "shared", "off") and not (kind == "tenant" and name):
            raise InvalidInput(
                f"scope={self.scope!r:.80} is not known", hint="use 'task', 'tenant:NAME', 'shared' or 'off'"
            )
        asked = self.asked
        if self.scope == "task" and self.is_plain:
            return prompt_identity(self.operation_type, asked, self.model, task_id, sample=self.sample)
        content = [self.operation_type, asked, self.model, self.sample]
        own = digest(["llm-request", self.scope, task_id, *content], what="prompt")
        text = asked if isinstance(asked, str) else canonical_text(asked, what="prompt")
        known = (self.operation_type, self.model, sha256(text.encode()).hexdigest(), text[:PREVIEW])
        if self.scope == "task":
            return PromptIdentity(own, task_id, *known, asked=asked)
        if self.scope == "off":
            return PromptIdentity(f"off-{uuid4().hex}", task_id, *known, keep=False)
        return PromptIdentity(
            digest(["llm-shared", self.scope, *content], what="prompt"), task_id, *known, own, asked=asked
        )

    def estimated_tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens that the call is taken to need before it is made."""
        asked = self.asked
        size = len(asked.encode(errors="replace")) if isinstance(asked, str) else len(canonical(asked, what="prompt"))
        given = self.parameters or {}
        maximum = next((given[name] for name in _MAXIMA if isinstance(given.get(name), int)), OUTPUT_TOKENS)
        return -(-size // BYTES_PER_TOKEN), max(0, maximum)


def _present(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields that are there. Only on this level: inside a schema or a tool's arguments null means null."""
    return {name: value for name, value in (fields or {}).items() if value is not None}


def _message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    kept = _present(message)
    if isinstance(content := kept.get("content"), list | tuple):
        kept["content"] = [_present(part) if isinstance(part, Mapping) else part for part in content]
    return kept


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    kept = _present(tool)
    if isinstance(function := kept.get("function"), Mapping):
        kept["function"] = _present(function)
    return kept
