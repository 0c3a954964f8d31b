"""What one worker process is told: from the command line, over the environment, over the defaults."""

import importlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from agentos.core.app import App
from agentos.store.errors import ConfigInvalid
from agentos.store.settings import Settings

BUILTIN_KINDS = ("llm", "plan")


@dataclass(frozen=True, slots=True)
class Options:
    """`solo`: serve only items that crashed their process once, one at a time, and leave when there are none."""

    settings: Settings
    app: App
    queues: tuple[str, ...] = ("default",)
    allow_shell: bool = False
    listen: bool = True
    solo: bool = False
    health_port: int | None = None
    label: str | None = None
    child_argv: tuple[str, ...] | None = None
    app_reference: str | None = None
    """`module:name` of the app: where the process of an isolated handler finds it again."""

    def __post_init__(self) -> None:
        """Raises ConfigInvalid: if a handler is to run in a process that could not find it."""
        isolated = [kind for kind, handler in self.app.handlers.items() if handler.isolation == "process"]
        if isolated and self.app_reference is None:
            raise ConfigInvalid(
                f'the handlers {", ".join(sorted(isolated))} have isolation="process", and this worker has no reference'
                " to their app for another process to import",
                hint="start agentos-worker --app module:app, or pass Options(app_reference='module:app');"
                " in a test, make the App and its isolated handlers at the top of a module",
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds this worker can run; it claims nothing else."""
        shell = ("shell",) if self.allow_shell else ()
        return (*self.app.handlers, *BUILTIN_KINDS, *shell)

    @property
    def versions(self) -> dict[str, list[int]]:
        """The versions of each kind that it can run; of those it says nothing about: 0."""
        return {kind: sorted(handler.accepts) for kind, handler in self.app.handlers.items() if handler.accepts != {0}}

    @property
    def served(self) -> tuple[list[str], list[int]]:
        """Kinds and versions by place, a pair for each that it claims."""
        pairs = [(kind, version) for kind in self.kinds for version in self.versions.get(kind, [0])]
        return [kind for kind, _ in pairs], [version for _, version in pairs]

    @property
    def concurrency(self) -> int:
        """Items at the same time."""
        return 1 if self.solo else self.settings.concurrency


def _place(exc: Exception) -> str:
    """File and line of the mistake: a SyntaxError names them itself, others where they were raised."""
    if isinstance(exc, SyntaxError):
        return f"{exc.filename}:{exc.lineno}"
    last = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def reference_to(app: App) -> str | None:
    """`module:name` of an App in which other processes find the isolated handlers of `app`; None: there is none."""
    isolated = [handler for handler in app.handlers.values() if handler.isolation == "process"]
    for module_name in {handler.function.__module__ for handler in isolated}:
        for name, found in vars(sys.modules[module_name]).items():
            if isinstance(found, App) and all(found.handlers.get(each.kind) is each for each in isolated):
                return f"{module_name}:{name}"
    return None


def load_app(reference: str | None) -> App:
    """The `App` that `module:name` names; without a reference an empty one, for the built-in kinds.

    Raises ConfigInvalid: if the module cannot be imported, has no such name, or the name is no App.
    """
    if reference is None:
        return App()
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigInvalid(f"--app {reference!r} is not module:name", hint="for example --app my_agents:app")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as exc:
        raise ConfigInvalid(
            f"--app {reference}: cannot import {module_name!r}: {exc}",
            hint="start the worker where the module can be imported, or set PYTHONPATH",
        ) from exc
    except Exception as exc:  # whatever the user's own code raises while it is imported
        raise ConfigInvalid(
            f"--app {reference}: {type(exc).__name__} while importing it, at {_place(exc)}: {exc}",
            hint=f"python -c 'import {module_name}' shows all of it",
        ) from exc
    found = getattr(module, attribute, None)
    if not isinstance(found, App):
        raise ConfigInvalid(
            f"--app {reference}: {attribute!r} is {type(found).__name__}, not an App",
            hint=f"write `{attribute} = App()` in {module_name} and register handlers with @{attribute}.task",
        )
    return found
