"""The base of all errors of agentos."""


class AgentOSError(Exception):
    """Base of all errors of agentos. `hint` says what to do next; `str()` shows message and hint."""

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail:
            parts.append(self.detail)
        if self.hint:
            parts.append(f"Fix: {self.hint}")
        return "\n".join(parts)
