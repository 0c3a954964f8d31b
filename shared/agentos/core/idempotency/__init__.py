"""Not paying for a model's output twice, and not doing a tool's side effect twice."""

from agentos.core.flows.tools import NOT_DONE, UNKNOWN, Done, ToolCall
from agentos.core.idempotency.cache import LLMOutputCache
from agentos.core.idempotency.ledger import ToolLedger

__all__ = ["NOT_DONE", "UNKNOWN", "Done", "LLMOutputCache", "ToolCall", "ToolLedger"]
