"""The commit happened and its reply never came: nothing is lost by that, nothing happens twice."""

from tests.worker.pool import Pool, Sweeping


def faulty(pool: Pool, fault: str) -> None:
    pool.worker(module="tests.crash.faulty_worker", env={"FAULT": fault}, wait=False)


def test_items_of_a_claim_without_a_reply_are_given_back_and_run(pool: Pool, sweeping: Sweeping) -> None:
    handles = [pool.submit("quick", n=n) for n in range(3)]
    faulty(pool, "claim lost 1")
    assert [handle.result(60) for handle in handles] == [0, 1, 2]
    assert "given back" in pool.started[0].until_said("nobody here knew")
    assert [pool.counters(handle)[1:] for handle in handles] == [(0, 0)] * 3
    assert sorted(pool.effects()) == ["ran 0", "ran 1", "ran 2"]


def test_a_completion_without_a_reply_is_neither_lost_nor_doubled(pool: Pool, sweeping: Sweeping) -> None:
    handles = [pool.submit("quick", n=n) for n in range(20)]
    faulty(pool, "complete lost 1")  # all twenty may go with one
    assert [handle.result(60) for handle in handles] == list(range(20))
    pool.started[0].until_said("on purpose")
    handle = pool.submit("quick", n=99)  # no slot leaked
    assert handle.result(60) == 99
    assert len(pool.effects()) == 21
    assert not pool.started[0].said("refused")
    assert pool.rows("SELECT item_id FROM agentos.outcomes GROUP BY 1 HAVING count(*) > 1") == []


def test_records_without_a_reply_are_found_again(pool: Pool, sweeping: Sweeping) -> None:
    handle = pool.submit("journey")
    points = ("commit_checkpoint", "ledger_begin", "ledger_finish", "cache_begin", "cache_finish")
    faulty(pool, ";".join(f"{point} lost 1" for point in points))
    assert handle.result(60)["done"] == [0, 1, 2]
    assert pool.counters(handle) == (1, 0, 0)  # within one attempt
    assert len(pool.effects("effect")) == 3
    assert len(pool.effects("llm")) == 1
    assert pool.row("SELECT count(*), max(sequence_number) FROM agentos.checkpoints") == (3, 3)


def test_a_failure_without_a_reply_is_charged_once(pool: Pool, sweeping: Sweeping) -> None:
    handle = pool.submit("fails_once")
    faulty(pool, "fail lost 1")
    assert handle.result(60) == "second"
    assert pool.counters(handle) == (2, 1, 0)
