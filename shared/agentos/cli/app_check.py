"""`python -m agentos.cli.app_check MODULE:NAME`: whether a worker could load this App; 2 and JSON if not."""

import json
import sys

from agentos.cli.exits import USAGE
from agentos.cli.up import APP_MARK
from agentos.store.errors import ConfigInvalid
from agentos.worker.options import load_app


def main() -> None:
    """The answer is the last line: what the app prints while it is imported comes before it."""
    try:
        load_app(sys.argv[1])
    except ConfigInvalid as error:
        print()
        print(APP_MARK + json.dumps({"message": error.message, "hint": error.hint}))
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
