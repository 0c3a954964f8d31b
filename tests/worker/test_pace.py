"""How much a worker takes ahead of its slots."""

import pytest

from agentos.worker.pace import CLAIM_MOST, WIDE_MOST, claim_most


@pytest.mark.parametrize("free", range(0, 4 * WIDE_MOST, 16))
def test_what_a_claim_takes_beyond_the_usual_has_a_free_slot(free: int) -> None:
    assert CLAIM_MOST <= claim_most(free) <= WIDE_MOST
    assert claim_most(free) == CLAIM_MOST or claim_most(free) <= free


def test_few_slots_take_as_usual_and_many_take_more() -> None:
    assert claim_most(8) == CLAIM_MOST
    assert claim_most(1000) == WIDE_MOST
