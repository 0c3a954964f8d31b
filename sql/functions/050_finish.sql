-- held -> outcome | scheduled | ready | waiting

CREATE TYPE agentos.ended AS (
    item_id bigint, token uuid, worker_id bigint, lane integer, rank bigint, attempt integer, failures smallint,
    crashes smallint, claimed_at timestamptz
);

-- Takes these leases away from their holder for good: locked in item order as (item, token) pairs, then deleted.
-- `token = ANY (...)` would let a stale token of one item through with the fresh one of another.
-- Found by item, whatever the statistics say, and never by worker (hence + 0): while the vacuum horizon is pinned, the
-- worker's index has every lease it ever held. And not by a join with the pairs: where lease_held was empty when it was
-- analyzed, and it is every now and then, that reads all that is held, once for each pair.
CREATE FUNCTION agentos.end_leases(p_worker bigint, p_items bigint[], p_tokens uuid[]) RETURNS agentos.ended[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_mine bigint[]; v_ended agentos.ended[];
BEGIN
    PERFORM agentos.enter_fence();
    v_mine := ARRAY(
        SELECT h.item_id FROM agentos.lease_held h
         WHERE h.item_id = ANY (p_items) AND h.item_id = p_items[array_position(p_tokens, h.token)]
           AND h.worker_id + 0 = p_worker AND (h.expires_at IS NULL OR h.expires_at > agentos.clock())
         ORDER BY h.item_id FOR UPDATE);
    WITH gone AS (DELETE FROM agentos.lease_held WHERE item_id = ANY (v_mine) RETURNING *)
    SELECT coalesce(array_agg((g.item_id, g.token, g.worker_id, g.lane, g.rank, g.attempt, g.failures, g.crashes,
                               g.claimed_at)::agentos.ended), '{}') INTO v_ended FROM gone g;
    RETURN v_ended;
END $$;

-- Completes many items in one commit. Returns those that were fenced off: nothing was written for them. A pair that
-- comes twice counts once; a stale token beside the fresh one of the same item does not bring its result along. Every
-- outcome comes from the lease that is deleted, so one statement fences it. Deleted, and by that locked, in item order,
-- that of the index; without a join, as in `end_leases`. Locking them first took each row twice.
-- A lease finds its pair by bisection (width_bucket), which looks at 8 of 256 where array_position looks at half of them.
-- Of items that are not in order, or given twice, it may miss some: what is missing is looked at once more, one by one.
CREATE FUNCTION agentos.complete(p_worker bigint, p_items bigint[], p_tokens uuid[], p_results text[]) RETURNS bigint[]
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE v_ok boolean := agentos.enter_fence(); v_done bigint[]; v_now timestamptz := agentos.clock();
BEGIN
    WITH gone AS (
        DELETE FROM agentos.lease_held h
         WHERE h.item_id = ANY (p_items) AND h.item_id = p_items[width_bucket(h.item_id, p_items)]
           AND h.token = p_tokens[width_bucket(h.item_id, p_items)]
           AND h.worker_id + 0 = p_worker AND (h.expires_at IS NULL OR h.expires_at > v_now)
        RETURNING h.*, p_results[width_bucket(h.item_id, p_items)] AS result),
    done AS (
        INSERT INTO agentos.outcomes (item_id, token, worker_id, attempt, failures, crashes, status, claimed_at, finished_at,
                                      result)
        SELECT g.item_id, g.token, g.worker_id, g.attempt, g.failures, g.crashes, 'completed', g.claimed_at, v_now,
               g.result::json FROM gone g RETURNING item_id)
    SELECT coalesce(array_agg(item_id), '{}') INTO v_done FROM done;
    PERFORM agentos.settle(v_done, true);
    IF cardinality(v_done) = cardinality(p_items) THEN RETURN '{}'; END IF;
    IF cardinality(p_items) = 1 THEN RETURN p_items; END IF;
    RETURN ARRAY(SELECT i FROM unnest(p_items) i WHERE i <> ALL (v_done)
                 EXCEPT SELECT i FROM agentos.complete_singly(p_worker, p_items, p_tokens, p_results, v_done) i);
END $$;

-- Of these pairs those whose items are not in p_done, each by itself, in item order. Returns the items that it completed.
CREATE FUNCTION agentos.complete_singly(p_worker bigint, p_items bigint[], p_tokens uuid[], p_results text[], p_done bigint[])
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE v_at integer;
BEGIN
    FOR v_at IN SELECT n FROM unnest(p_items) WITH ORDINALITY u(i, n) WHERE i <> ALL (p_done) ORDER BY i, n LOOP
        IF agentos.complete(p_worker, ARRAY[p_items[v_at]], ARRAY[p_tokens[v_at]], ARRAY[p_results[v_at]]) = '{}' THEN
            RETURN NEXT p_items[v_at];
        END IF;
    END LOOP;
END $$;

-- What a busy worker does with one round trip and one commit: it completes what has ended, then claims. p_claim_no: the
-- new items are prefetched and wait in the worker; p_begun: the numbers of former claims whose items begin now, durable
-- before a handler's first step, because the worker begins them on the reply; p_over: of those that are all over.
-- Dies the worker before the commit, its items are held as they were, and those not begun are charged nothing; after it,
-- the completed are outcomes, and the new and the begun come back by `reclaim`, the begun with a crash charged.
-- The last row has no item: what was fenced off, and whether work waits that must run alone.
CREATE FUNCTION agentos.turn(p_worker bigint, p_epoch integer, p_items bigint[], p_tokens uuid[], p_results text[],
                             p_lanes integer[], p_limit integer, p_solo integer[], p_claim_no bigint, p_begun bigint[],
                             p_over bigint[]) RETURNS SETOF agentos.claimed LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET plan_cache_mode = force_generic_plan
SET jit = off AS $$
DECLARE v_fenced bigint[] := '{}';
BEGIN
    PERFORM agentos.hold_epoch(p_worker, p_epoch);
    IF cardinality(p_items) > 0 THEN v_fenced := agentos.complete(p_worker, p_items, p_tokens, p_results); END IF;
    IF cardinality(p_begun) > 0 THEN
        INSERT INTO agentos.begun_claims (worker_id, claim_no) SELECT p_worker, n FROM unnest(p_begun) n ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(p_over) > 0 THEN
        DELETE FROM agentos.begun_claims WHERE worker_id = p_worker AND claim_no = ANY (p_over);
    END IF;
    RETURN QUERY SELECT * FROM agentos.take(p_worker, p_lanes, p_limit, p_claim_no);
    RETURN NEXT agentos.last_row(p_solo, v_fenced);
END $$;

-- The reply to `complete` was lost: which of these items ended under exactly this token.
CREATE FUNCTION agentos.ended_by(p_items bigint[], p_tokens uuid[]) RETURNS bigint[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(o.item_id), '{}') FROM unnest(p_items, p_tokens) AS u(item_id, token)
      JOIN agentos.outcomes o ON o.item_id = u.item_id AND o.token = u.token
$$;

-- The handler raised (or must never run: p_terminal). Below max_attempts the item is scheduled again, after p_delay_s
-- or an exponential 1 s, 2 s, 4 s ... (at most 5 min, jittered by a quarter).
CREATE FUNCTION agentos.fail(p_worker bigint, p_item bigint, p_token uuid, p_error text, p_terminal boolean, p_delay_s float8,
                             p_status text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_ended agentos.ended[] := agentos.end_leases(p_worker, ARRAY[p_item], ARRAY[p_token]);
    v_item agentos.work_items; v_failures integer; v_at timestamptz;
BEGIN
    IF cardinality(v_ended) = 0 THEN PERFORM agentos.lease_lost(p_item, p_worker); END IF;
    SELECT * INTO v_item FROM agentos.work_items w WHERE w.item_id = p_item;
    IF p_status = 'cancelled' AND NOT agentos.is_over(v_item.task_id) THEN
        PERFORM agentos.requeue(v_ended), agentos.count_wall(v_ended);  -- retried since its claim: it is to run after all
        RETURN 'ready';
    END IF;
    v_failures := (v_ended[1]).failures + CASE WHEN p_status = 'cancelled' THEN 0 ELSE 1 END;
    IF p_terminal OR v_failures >= v_item.max_attempts THEN
        INSERT INTO agentos.outcomes (item_id, token, worker_id, attempt, failures, crashes, status, claimed_at, finished_at, error)
        SELECT e.item_id, e.token, e.worker_id, e.attempt, v_failures, e.crashes, p_status, e.claimed_at, agentos.clock(),
               p_error::json FROM unnest(v_ended) e;
        PERFORM agentos.settle(ARRAY[p_item], false);
        RETURN p_status;
    END IF;
    v_at := agentos.clock() + make_interval(secs => coalesce(
        p_delay_s, least(300, 2 ^ least(v_failures - 1, 10)) * (0.875 + random() / 4)));
    INSERT INTO agentos.scheduled (item_id, run_at, lane, rank, attempt, failures, crashes)
    SELECT e.item_id, v_at, e.lane, e.rank, e.attempt, v_failures, e.crashes
      FROM unnest(v_ended) e;
    PERFORM agentos.count_wall(v_ended);
    PERFORM agentos.note(v_item.task_id, p_item, 'attempt_failed', (v_ended[1]).attempt, p_worker, (p_error::jsonb ||
        jsonb_build_object('claimed_at', (v_ended[1]).claimed_at, 'next_try_at', v_at))::json);
    RETURN 'scheduled';
END $$;

-- Whether nothing of the task may begin any more.
CREATE FUNCTION agentos.is_over(p_task text) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM agentos.task_heads t
                    WHERE t.task_id = p_task AND (t.cancel_requested OR t.status IS NOT NULL))
$$;

-- Gives items back untouched: neither a failure nor a crash is charged. The time for which those ran that had begun counts
-- on. Returns those given back.
CREATE FUNCTION agentos.release(p_worker bigint, p_items bigint[], p_tokens uuid[]) RETURNS bigint[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_begun bigint[]; v_ended agentos.ended[];
BEGIN
    v_begun := ARRAY(
        SELECT h.item_id FROM agentos.lease_held h WHERE h.item_id = ANY (p_items) AND (h.started OR EXISTS (
            SELECT 1 FROM agentos.begun_claims b WHERE b.worker_id = h.worker_id AND b.claim_no = h.claim_no)));
    v_ended := agentos.end_leases(p_worker, p_items, p_tokens);
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT e.lane, e.rank, nextval('agentos.ready_seqs'), e.item_id, e.attempt, e.failures, e.crashes FROM unnest(v_ended) e;
    PERFORM agentos.count_wall(ARRAY(SELECT e FROM unnest(v_ended) e WHERE e.item_id = ANY (v_begun)));
    RETURN ARRAY(SELECT e.item_id FROM unnest(v_ended) e);
END $$;

-- Its holder cannot work on it, through no fault of the item's: it is scheduled again, and nothing is charged. Dies the
-- holder before the commit, the item is held as it was; after it, it is scheduled.
CREATE FUNCTION agentos.put_off(p_worker bigint, p_item bigint, p_token uuid, p_delay_s float8, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v_ended agentos.ended[] := agentos.end_leases(p_worker, ARRAY[p_item], ARRAY[p_token]);
BEGIN
    IF cardinality(v_ended) = 0 THEN PERFORM agentos.lease_lost(p_item, p_worker); END IF;
    INSERT INTO agentos.scheduled (item_id, run_at, lane, rank, attempt, failures, crashes)
    SELECT e.item_id, agentos.clock() + make_interval(secs => p_delay_s), e.lane, e.rank, e.attempt, e.failures, e.crashes
      FROM unnest(v_ended) e;
    PERFORM agentos.count_wall(v_ended);
    PERFORM agentos.note(w.task_id, p_item, 'put_off', e.attempt, p_worker, p_reason::json)
       FROM unnest(v_ended) e JOIN agentos.work_items w USING (item_id);
END $$;

-- Puts off the end of a lease that has its own (LeaseManager). The worker's row comes first, as everywhere; one that is
-- declared dead renews nothing, its leases are on their way to others.
CREATE FUNCTION agentos.renew(p_worker bigint, p_item bigint, p_token uuid, p_lease_s float8) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE v_until timestamptz := agentos.clock() + make_interval(secs => p_lease_s);
BEGIN
    UPDATE agentos.workers SET expires_at = greatest(expires_at, v_until), beat_at = agentos.clock()
     WHERE worker_id = p_worker AND state IN ('alive', 'draining');
    IF NOT FOUND THEN PERFORM agentos.lease_lost(p_item, p_worker); END IF;
    PERFORM agentos.fence(p_item, p_worker, p_token);
    UPDATE agentos.lease_held SET expires_at = v_until WHERE item_id = p_item;
    RETURN v_until;
END $$;
