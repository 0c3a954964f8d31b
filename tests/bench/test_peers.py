"""What `make bench-peers` computes, and that its pins name no host."""

import re

import pytest
from bench.peers.__main__ import compared
from bench.peers.contenders import common_rate
from bench.peers.install import PEERS, NotInstalled, Peer, install

SECOND = 1_000_000_000


def test_the_rate_of_two_processes_counts_only_while_both_are_at_work() -> None:
    early = [n * SECOND // 100 for n in range(1000)]
    late = [5 * SECOND + n * SECOND // 100 for n in range(1000)]
    assert common_rate([early]) == pytest.approx(100, rel=0.01)
    assert common_rate([early, late]) == pytest.approx(200, rel=0.01)
    with pytest.raises(ValueError, match="at the same time"):
        common_rate([early, [at + 60 * SECOND for at in late]])


def test_agentos_is_held_to_the_best_peer_in_its_direction() -> None:
    rates = list(
        compared("drain", "items/s", {"agentos": [100.0, 110.0], "slow": [10.0, 11.0], "fast": [200.0, 220.0]})
    )
    assert (rates[0].baseline, rates[0].ratio, rates[0].holds) == ("fast", 0.5, False)
    assert [figure.ratio for figure in rates[1:]] == [0.1, 2.0]
    times = list(compared("pickup", "ms, p50", {"agentos": [1.0], "slow": [4.0], "fast": [2.0]}))
    assert (times[0].baseline, times[0].ratio, times[0].holds) == ("fast", 0.5, True)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.folder)
def test_the_pins_have_hashes_and_name_no_host(peer: Peer) -> None:
    text = peer.pins.read_text()
    assert re.search(r"sha(256|512)[:-]", text)
    assert not re.search(r"https?://|index-url|resolved", text)


def test_a_peer_whose_tool_is_missing_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    (graphile,) = (peer for peer in PEERS if peer.folder == "graphile")
    with pytest.raises(NotInstalled, match="npm is not installed"):
        install(graphile)
