"""Leaving out a module that others import when they find it."""

import importlib
import sys

import pytest

from agentos.core.imports import without


def test_within_the_block_it_cannot_be_imported_and_afterwards_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with without("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules


def test_what_is_imported_already_stays() -> None:
    with without("sys"):
        assert importlib.import_module("sys") is sys
    assert sys.modules["sys"] is sys


def test_it_is_given_back_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), without("antigravity"):
        _ = 1 / 0
    assert "antigravity" not in sys.modules
