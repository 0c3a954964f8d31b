"""Starts the watchdog: `python -S …/agentos/store/embedded DATA_DIR LINGER_S LOCK SERVER`.

Run as a folder, not as a module: `agentos.store` imports settings and both drivers, which a process that only waits,
for days, need not hold in memory. So a bare `agentos.store` takes its place, and the standard library is enough.
"""

import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    store_folder = Path(__file__).resolve().parents[1]
    store = ModuleType("agentos.store")
    store.__path__ = [str(store_folder)]
    sys.modules["agentos.store"] = store
    sys.path[0] = str(store_folder.parents[1])

    from agentos.store.embedded import watchdog

    watchdog.main(sys.argv[1:])
