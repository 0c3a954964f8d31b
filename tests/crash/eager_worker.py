"""`python -m tests.crash.eager_worker`: a worker that prefetches as if what its handlers ever finished were recent, so
that a test finds the items that wait in it.
"""

from agentos.worker import pace, process
from agentos.worker.__main__ import main

if __name__ == "__main__":
    pace.WINDOW_S = process.WINDOW_S = 3600.0  # type: ignore[attr-defined]
    main()
