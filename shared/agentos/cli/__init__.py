"""The `agentos` command."""
