"""Whenever its worker dies, the customer is charged once: `pytest test_order_agent.py` in this folder."""

from pathlib import Path

import pytest
from order_agent import app

from agentos.testing import CRASH_TIMES, Pool, crash_at


@pytest.mark.parametrize("when", CRASH_TIMES)
@pytest.mark.parametrize("call", ["wait", "ledger_finish"])
def test_the_customer_is_charged_once(
    agentos_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, call: str
) -> None:
    monkeypatch.chdir(tmp_path)
    handle = app.submit("order", {"amount": 12})
    with crash_at(f"{when}:{call}"):
        assert agentos_pool.drain(app, skip_waits=True).killed  # a real process, kill -9
    agentos_pool.drain(app, skip_waits=True)  # another worker goes on; the hour passes at once
    assert handle.result(0) == {"charged": 12}
    assert len(Path("bank.log").read_text().splitlines()) == 1
