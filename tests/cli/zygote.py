"""A process that has imported what commands need and forks for each of them: a real process in a tenth of the time.

It reads one JSON line per command, {argv, env, stdin}, and answers with {code, stdout, stderr}. Nothing of agentos.cli
is imported before the fork, so the part that differs from a start from nothing is the imports of libraries alone.
"""

import json
import os
import sys
import tempfile
from typing import Any

import agentos.core.plan
import agentos.core.verification
import agentos.store.connect  # noqa: F401  imported so that commands need not


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        print(json.dumps(_fork(**json.loads(line))), flush=True)


def _fork(argv: list[str], env: dict[str, str], stdin: str) -> dict[str, Any]:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            for number, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), number)
            os.environ.clear()
            os.environ.update(env)
            _become(argv)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        return {"code": os.waitstatus_to_exitcode(status), "stdout": texts[0], "stderr": texts[1]}


def _become(argv: list[str]) -> None:
    """The command, as the console script runs it; never returns."""
    code: object = 1
    try:
        from agentos.cli.__main__ import main as command  # noqa: PLC0415  after the fork

        command(argv)
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    main()
