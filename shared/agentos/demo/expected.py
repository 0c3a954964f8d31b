"""What must have been done when the audit is over, worked out from the environment and not from the database."""

from collections.abc import Sequence

from agentos.demo.app import requirements_command, slices, verify_command
from agentos.demo.distributions import Installed


def effects_of(listed: Sequence[Installed]) -> list[str]:
    """Every effect of the audit of these distributions, in the words of the effects log."""
    done = []
    for one in listed:
        done += [verify_command(one.name, first, last, one.files) for first, last in slices(one.files)]
        done.append(requirements_command(one.name))
        done += [f"write artifacts/{one.name}{suffix}" for suffix in (".findings.json", ".json")]
    return [*done, "write report.md", "write report.html"]
