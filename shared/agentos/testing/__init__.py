"""Prove that your agents survive a crash: a pytest plugin with a database per test, a worker that drains, a clock to
move, and real kills at the points where something is written.

```python
from agentos.testing import Pool, crash_at
from my_agents import app

def test_the_customer_is_charged_once(agentos_pool: Pool) -> None:
    handle = app.submit("order", {"id": 7})
    with crash_at("before:ledger_finish"):     # charged, and not yet recorded: the worst moment
        agentos_pool.drain(app)                # a real process, killed -9 there
    agentos_pool.drain(app)                    # another worker goes on from the last checkpoint
    assert handle.result(0) == {"charged": 1}
```

pytest finds the fixtures by itself: `agentos_dsn`, `agentos_pool`, `agentos_clock`.
"""

from agentos.testing.clock import Clock
from agentos.testing.crash import CRASH_TIMES, CrashPointNotReached, crash_at, crash_points
from agentos.testing.pool import Drained, Pool

__all__ = ["CRASH_TIMES", "Clock", "CrashPointNotReached", "Drained", "Pool", "crash_at", "crash_points"]
