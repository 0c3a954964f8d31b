"""Traces by OpenTelemetry: nothing of it is imported unless the environment or the user's program asks for it."""
