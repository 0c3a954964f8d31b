-- nothing -> held: a submit hands its item to a worker that waits for work, in its own transaction.
--
-- Three things must be so, and each is kept where it costs least. What a worker takes: rows of `offers`. Whether it waits now:
-- a lock of a session, which writes nothing and ends with it; only a hint. Whether it may: its row, locked as by a claim.

-- The lock by which a worker says that it waits. Worker ids are random in 64 bits.
CREATE FUNCTION agentos.waits_key(p_worker bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashint8extended(p_worker, 20261129)
$$;

-- Says in this session that the worker waits (p_yes), or does no more. Returns whether it is said now: a submit that looks
-- at this moment may be in the way; then say it again. Writes nothing.
CREATE FUNCTION agentos.stand_by(p_worker bigint, p_yes boolean) RETURNS boolean LANGUAGE sql AS $$
    SELECT CASE WHEN p_yes THEN pg_try_advisory_lock(agentos.waits_key(p_worker))
                ELSE pg_advisory_unlock(agentos.waits_key(p_worker)) IS NULL END
$$;

-- From now on submits may hand the worker items of p_lanes, which have no limits, up to p_room. False: it may not claim from
-- them as it believes (its epoch is old), or does not live; nothing has changed. Died before the commit: as it was; after
-- it, submits hand it nothing while its session does not say that it waits.
CREATE FUNCTION agentos.offer(p_worker bigint, p_epoch integer, p_lanes integer[], p_room integer) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.enter_fence();
    PERFORM 1 FROM agentos.workers w
      WHERE w.worker_id = p_worker AND w.state = 'alive' AND w.claim_epoch = p_epoch FOR KEY SHARE;
    IF NOT FOUND THEN RETURN false; END IF;
    DELETE FROM agentos.offers o WHERE o.worker_id + 0 = p_worker AND (o.lane <> ALL (p_lanes) OR o.room <> p_room);
    INSERT INTO agentos.offers (lane, worker_id, room) SELECT l, p_worker, p_room FROM unnest(p_lanes) l ON CONFLICT DO NOTHING;
    UPDATE agentos.workers w SET offering = true WHERE w.worker_id = p_worker AND NOT w.offering;
    RETURN true;
END $$;

-- Called by the submit of p_item in place of making it ready. False: nobody waits for it. Which worker has it is left in
-- the session, for the wake-up behind the submit. Row and table lock of the worker are those of a claim (`hold_epoch`), so
-- a limit, a pause, a drain or a death that comes meanwhile is either seen here or finds the lease. A worker whose row is
-- locked by who judges it gets nothing, and nobody waits; a limit or a pause that locks the table is waited for, as by a
-- claim. After that lock the offer is looked at again: it may have been withdrawn since it was found. A host that is gone
-- without a word holds its lock still: who has missed a beat gets nothing, and nobody gets more than p_room of the last
-- thousand items.
CREATE FUNCTION agentos.hand_over(p_item bigint, p_lane integer, p_rank bigint, p_now timestamptz) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE v record; v_from bigint := (random() * 4.6e18)::bigint; v_set text := set_config('agentos.handed', '', false);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN RETURN false; END IF;
    FOR v IN (SELECT o.worker_id, o.room FROM agentos.offers o WHERE o.lane = p_lane AND o.worker_id >= v_from
               ORDER BY o.worker_id LIMIT 4)
             UNION ALL
             (SELECT o.worker_id, o.room FROM agentos.offers o WHERE o.lane = p_lane AND o.worker_id < v_from
               ORDER BY o.worker_id LIMIT 4) LOOP
        CONTINUE WHEN pg_try_advisory_xact_lock_shared(agentos.waits_key(v.worker_id));
        CONTINUE WHEN (SELECT count(*) FROM (
            SELECT 1 FROM agentos.lease_held h
             WHERE h.worker_id + 0 = v.worker_id AND h.claim_no = -1 AND h.item_id + 0 > p_item - 1000 LIMIT v.room) x) >= v.room;
        PERFORM 1 FROM agentos.workers w
          WHERE w.worker_id = v.worker_id AND w.state = 'alive' AND w.offering AND w.expires_at > p_now
            AND w.beat_at > p_now - w.ttl / 2 FOR KEY SHARE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        PERFORM 1 FROM agentos.offers o WHERE o.lane = p_lane AND o.worker_id = v.worker_id;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO agentos.lease_held (item_id, worker_id, token, lane, rank, attempt, failures, crashes, started, claimed_at,
                                        claim_no)
        VALUES (p_item, v.worker_id, gen_random_uuid(), p_lane, p_rank, 1, 0, 0, true, p_now, -1);
        v_set := set_config('agentos.handed', v.worker_id::text, false);
        RETURN true;
    END LOOP;
    RETURN false;
END $$;

-- The wake-up behind a submit in the same session: it tells the worker that was handed the item, else those of the queue.
-- The word is taken away: what goes along next may be no hand-over.
CREATE FUNCTION agentos.wake_behind(p_queue text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('agentos_wake', coalesce('@' || nullif(current_setting('agentos.handed', true), ''), p_queue)),
           set_config('agentos.handed', '', false)
$$;

-- Whether a worker was handed something that it does not know: above the item p_above, none of p_known. While the vacuum
-- horizon is pinned, the index has all that was ever handed to it: hence p_above.
CREATE FUNCTION agentos.is_handed(p_worker bigint, p_above bigint, p_known bigint[]) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM agentos.lease_held h
                    WHERE h.worker_id + 0 = p_worker AND h.claim_no = -1 AND h.item_id + 0 > p_above AND h.item_id <> ALL (p_known));
END $$;

-- These items, as a claim returns them; reads only. OFFSET 0 as in `take`.
CREATE FUNCTION agentos.handed(p_worker bigint, p_above bigint, p_known bigint[]) RETURNS SETOF agentos.claimed
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
    RETURN QUERY
    SELECT h.item_id, h.token, h.lane, h.attempt, h.failures::integer, h.crashes::integer,
           (extract(epoch FROM h.claimed_at) * 1000000)::bigint,
           w.task_id, w.seq, w.key, l.queue, l.kind, w.payload::text, w.max_attempts::integer, w.timeout_s::float8,
           coalesce(t.cancel_requested OR t.status IS NOT NULL, false), coalesce(t.paused, false), l.version,
           NULL::bigint[], NULL::boolean, NULL::boolean
      FROM agentos.lease_held h
      CROSS JOIN LATERAL (SELECT * FROM agentos.work_items i WHERE i.item_id = h.item_id OFFSET 0) w
      JOIN agentos.lanes l ON l.lane = abs(h.lane)
      LEFT JOIN LATERAL (SELECT * FROM agentos.task_heads i WHERE i.task_id = w.task_id OFFSET 0) t ON true
     WHERE h.worker_id + 0 = p_worker AND h.claim_no = -1 AND h.item_id + 0 > p_above AND h.item_id <> ALL (p_known)
     ORDER BY h.item_id + 0;
END $$;
