"""The databases of our own tests: those that `agentos.testing` gives to everybody."""

from agentos.testing.clock import Clock
from agentos.testing.databases import FAST, Databases, fast_folder, open_databases, private_server
from agentos.testing.soundness import assert_sound

TestServer = Databases
open_test_server = open_databases

__all__ = ["FAST", "Clock", "TestServer", "assert_sound", "fast_folder", "open_test_server", "private_server"]
