"""Content that a codec has sealed, and this process cannot open, or cannot seal."""

from agentos.store.errors.base import AgentOSError


class ContentSealed(AgentOSError):
    """Stored content was sealed by a codec that this process does not have, or that cannot open it. An item whose
    content is sealed is put off by a worker, and charged nothing.
    """


class CodecFailed(AgentOSError):
    """The codec raised, or returned no bytes, when content was to be stored. Nothing was stored."""
