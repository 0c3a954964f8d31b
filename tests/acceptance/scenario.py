"""Acceptance scripts: named checks, one line each on stdout as the quick reference has them, the rest on stderr."""

import sys
import traceback
from collections.abc import Callable, Mapping
from uuid import uuid4

from agentos.core.logs import configure_logs

Check = Callable[[], None]


def main(checks: Mapping[str, Check], *, noun: str, praise: str) -> int:
    """Run all checks. Prints PASS or FAIL for each and the total; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a text file: replaced by nobody in a script
    configure_logs(format="console", stream=sys.stderr)
    passed = 0
    for name, check in checks.items():
        try:
            check()
        except Exception:
            traceback.print_exc()
            print(f"❌ FAIL - {name}", flush=True)
        else:
            passed += 1
            print(f"✅ PASS - {name}", flush=True)
    print(f"\nTotal: {passed}/{len(checks)} {noun} passed")
    if passed == len(checks):
        print(f"🎉 {praise} PASSED")
    return 0 if passed == len(checks) else 1


def fresh_id(name: str) -> str:
    """A task id of this run: the default database may hold those of earlier ones."""
    return f"acceptance-{name}-{uuid4().hex[:12]}"


def expect(condition: object, what: str) -> None:
    """Raises AssertionError: if `condition` is false; not `assert`, so that python -O checks too."""
    if not condition:
        raise AssertionError(what)
