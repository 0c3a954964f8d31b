-- ready -> held

-- claimed_us: when, in microseconds since 1970. As a timestamptz it took a driver longer to read than all the rest of a row.
CREATE TYPE agentos.claimed AS (
    item_id bigint, token uuid, lane integer, attempt integer, failures integer, crashes integer, claimed_us bigint,
    task_id text, seq integer, key text, queue text, kind text, payload text, max_attempts integer, timeout_s float8,
    cancelled boolean, paused boolean, version integer,
    fenced bigint[], solo_waiting boolean, handed boolean  -- of the last row only, which has no item (`agentos.last_row`)
);

-- The claim's own workers row, locked against the declaration of its death; without it a claim racing that
-- declaration strands items for ever. FOR KEY SHARE lets beats pass.
CREATE FUNCTION agentos.hold_epoch(p_worker bigint, p_epoch integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_ok boolean := agentos.enter_fence();
BEGIN
    PERFORM 1 FROM agentos.workers w
      WHERE w.worker_id = p_worker AND w.state = 'alive' AND w.claim_epoch = p_epoch FOR KEY SHARE;
    IF NOT FOUND THEN
        IF EXISTS (SELECT 1 FROM agentos.workers w WHERE w.worker_id = p_worker AND w.state = 'alive') THEN
            PERFORM agentos.lanes_changed(p_worker);
        END IF;
        RAISE EXCEPTION 'worker % may not claim: it is not alive', p_worker
            USING ERRCODE = 'AG005', HINT = 'drop everything it held and start again under a new worker id';
    END IF;
END $$;

-- Takes up to p_limit items from p_lanes, in the order given, oldest rank first: those that `pick_ready` has locked.
-- A last row without an item says that work waits in p_solo, the lanes of items that must run alone.
-- The planner settings keep one plan, the index in order, whatever stale statistics say. Without jit = off a server
-- before 18 compiles that plan at every claim: there a plan that is forced costs 1e10.
CREATE FUNCTION agentos.claim(p_worker bigint, p_epoch integer, p_lanes integer[], p_limit integer, p_solo integer[])
RETURNS SETOF agentos.claimed LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET plan_cache_mode = force_generic_plan
SET jit = off AS $$
DECLARE v_last agentos.claimed;
BEGIN
    PERFORM agentos.hold_epoch(p_worker, p_epoch);
    RETURN QUERY SELECT * FROM agentos.take(p_worker, p_lanes, p_limit, NULL);
    v_last := agentos.last_row(p_solo, NULL);
    IF v_last.solo_waiting THEN RETURN NEXT v_last; END IF;
END $$;

-- OFFSET 0: items and heads are looked up by key, one by one. A plain join reads all of them, at each claim, where the
-- statistics know of a few rows in many pages, as after a purge.
-- p_claim_no: the items are prefetched, and begin when this number is in begun_claims; null: they are started now. Moving
-- the rows and reading what they stand for is one statement: as an array of leases between two it took a third more. A
-- cancel that commits meanwhile is not seen by it, as it would not be a moment later: the beat brings it.
-- A token is 60 random bits of this claim and the item: nobody else's, and no other claim's of this item. A server without
-- OpenSSL opens, reads and closes /dev/urandom for each random uuid.
CREATE FUNCTION agentos.take(p_worker bigint, p_lanes integer[], p_limit integer, p_claim_no bigint)
RETURNS SETOF agentos.claimed LANGUAGE plpgsql AS $$
DECLARE
    v_digits CONSTANT bigint := 1152921504606846976;  -- 2^60: with it an item's id has 16 digits in hex; lpad took 0.9 us an item
    v_picked tid[]; v_taken bigint; v_now timestamptz := agentos.clock(); v_us bigint; v_salt text;
BEGIN
    IF p_limit <= 0 THEN RETURN; END IF;
    v_picked := agentos.pick_ready(p_lanes, p_limit);
    IF cardinality(v_picked) = 0 THEN RETURN; END IF;
    v_us := extract(epoch FROM v_now) * 1000000;
    v_salt := left(replace(gen_random_uuid()::text, '-', ''), 16);
    RETURN QUERY
    WITH taken AS (DELETE FROM agentos.lease_ready WHERE ctid = ANY (v_picked) RETURNING *),
    held AS (
        INSERT INTO agentos.lease_held (item_id, worker_id, token, lane, rank, attempt, failures, crashes, started, claim_no,
                                        claimed_at)
        SELECT item_id, p_worker, (v_salt || to_hex(v_digits + item_id))::uuid, lane, rank, attempt + 1, failures, crashes, p_claim_no IS NULL,
               coalesce(p_claim_no, 0), v_now
          FROM taken ON CONFLICT DO NOTHING RETURNING *)
    SELECT h.item_id, h.token, h.lane, h.attempt, h.failures::integer, h.crashes::integer, v_us,
           w.task_id, w.seq, w.key, l.queue, l.kind, w.payload::text, w.max_attempts::integer, w.timeout_s::float8,
           coalesce(t.cancel_requested OR t.status IS NOT NULL, false), coalesce(t.paused, false), l.version,
           NULL::bigint[], NULL::boolean, NULL::boolean
      FROM held h
      CROSS JOIN LATERAL (SELECT * FROM agentos.work_items i WHERE i.item_id = h.item_id OFFSET 0) w
      JOIN agentos.lanes l ON l.lane = abs(h.lane)
      LEFT JOIN LATERAL (SELECT * FROM agentos.task_heads i WHERE i.task_id = w.task_id OFFSET 0) t ON true
     ORDER BY h.rank, h.item_id;
    GET DIAGNOSTICS v_taken = ROW_COUNT;
    IF v_taken < cardinality(v_picked) THEN
        PERFORM agentos.report_duplicates(p_worker, cardinality(v_picked) - v_taken);
    END IF;
END $$;

CREATE FUNCTION agentos.last_row(p_solo integer[], p_fenced bigint[]) RETURNS agentos.claimed LANGUAGE plpgsql AS $$
DECLARE v_last agentos.claimed;
BEGIN
    v_last.fenced := p_fenced;
    v_last.solo_waiting := false;
    IF cardinality(p_solo) > 0 THEN
        v_last.solo_waiting := EXISTS (
            SELECT 1 FROM unnest(p_solo) s
             CROSS JOIN LATERAL (SELECT 1 FROM agentos.lease_ready r WHERE r.lane = s LIMIT 1) r);
    END IF;
    RETURN v_last;
END $$;

-- A ready row for an item that is held already must not be: it is dropped, and said. One would otherwise stop a lane.
CREATE FUNCTION agentos.report_duplicates(p_worker bigint, p_count bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_count > 0 THEN
        RAISE WARNING 'agentos: % ready rows were for items held already', p_count;
        PERFORM agentos.note('', NULL, 'duplicate_ready_rows', NULL, p_worker, json_build_object('count', p_count));
    END IF;
END $$;

-- The same for the items of one task: what a runner without a worker process does. Limits and pauses are looked up each time.
-- Costs a walk over the ready rows of the task's lanes. p_lease_s: the lease ends by itself unless renewed; null: it lives as
-- long as its worker.
CREATE FUNCTION agentos.claim_task(p_worker bigint, p_epoch integer, p_task text, p_limit integer, p_lease_s float8)
RETURNS SETOF agentos.claimed LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.hold_epoch(p_worker, p_epoch);
    RETURN QUERY SELECT * FROM agentos.claim_rows_at(
        p_worker, p_lease_s, agentos.pick_of_task(p_task, agentos.lanes_of_task(p_task, false), p_limit));
    IF NOT FOUND AND EXISTS (SELECT 1 FROM agentos.limits) THEN
        RETURN QUERY SELECT * FROM agentos.take_limited(
            p_worker, agentos.lanes_of_task(p_task, true), p_limit, p_lease_s, p_task);
    END IF;
END $$;

-- The lanes of a task's items and their twins, without those of paused queues: with limits, or without.
CREATE FUNCTION agentos.lanes_of_task(p_task text, p_limited boolean) RETURNS integer[] LANGUAGE sql AS $$
    SELECT ARRAY(SELECT DISTINCT v.s * l.lane FROM agentos.work_items w JOIN agentos.lanes l USING (lane)
                  CROSS JOIN (VALUES (1), (-1)) v(s)
                  WHERE w.task_id = p_task AND NOT EXISTS (SELECT 1 FROM agentos.paused_queues p WHERE p.queue = l.queue)
                    AND p_limited = EXISTS (SELECT 1 FROM agentos.lane_limits x WHERE x.lane = l.lane) ORDER BY 1)
$$;

-- Locks ready rows of a task in these lanes; as `pick_ready`.
CREATE FUNCTION agentos.pick_of_task(p_task text, p_lanes integer[], p_limit integer) RETURNS tid[] LANGUAGE plpgsql AS $$
BEGIN
    RETURN ARRAY(
        SELECT r.ctid FROM agentos.lease_ready r
         WHERE r.lane = ANY (p_lanes) AND r.item_id IN (SELECT w.item_id FROM agentos.work_items w WHERE w.task_id = p_task)
         ORDER BY r.rank, r.seq LIMIT p_limit FOR UPDATE SKIP LOCKED);
END $$;

-- Why nothing of a task is claimed though it is ready: the name of its queue, when that is paused; '', when limits have no
-- room; null, when neither is so, or the task has ended.
CREATE FUNCTION agentos.held_back(p_task text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN bool_and(p.queue IS NOT NULL) THEN max(p.queue) WHEN count(*) > 0 THEN '' END
      FROM agentos.work_items w JOIN agentos.lanes l USING (lane) LEFT JOIN agentos.paused_queues p USING (queue)
      JOIN agentos.lease_ready r ON r.lane IN (l.lane, -l.lane) AND r.item_id = w.item_id
     WHERE w.task_id = p_task AND (p.queue IS NOT NULL OR EXISTS (SELECT 1 FROM agentos.lane_limits x WHERE x.lane = l.lane))
       AND NOT EXISTS (SELECT 1 FROM agentos.task_heads h WHERE h.task_id = p_task AND h.status IS NOT NULL)
$$;

-- The same for one item of any of these kinds (null: any kind): what `LeaseManager.acquire_lease` does. The planning
-- items of runners are theirs. Limits and pauses are looked up each time.
CREATE FUNCTION agentos.claim_one(p_worker bigint, p_epoch integer, p_kinds text[], p_lease_s float8)
RETURNS SETOF agentos.claimed LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.hold_epoch(p_worker, p_epoch);
    UPDATE agentos.workers w SET expires_at = greatest(w.expires_at, agentos.clock() + make_interval(secs => p_lease_s))
     WHERE w.worker_id = p_worker;
    RETURN QUERY SELECT * FROM agentos.claim_rows_at(p_worker, p_lease_s, ARRAY(
        SELECT x.row_at FROM agentos.lanes l CROSS JOIN (VALUES (1), (-1)) v(s)
         CROSS JOIN LATERAL (SELECT r.ctid AS row_at, r.rank FROM agentos.lease_ready r WHERE r.lane = v.s * l.lane
                              ORDER BY r.rank, r.seq LIMIT 1 FOR UPDATE SKIP LOCKED) x
         WHERE l.queue <> '@runner' AND (p_kinds IS NULL OR l.kind = ANY (p_kinds))
           AND NOT EXISTS (SELECT 1 FROM agentos.paused_queues p WHERE p.queue = l.queue)
           AND NOT EXISTS (SELECT 1 FROM agentos.lane_limits x WHERE x.lane = l.lane)
         LIMIT 1));
    IF NOT FOUND AND EXISTS (SELECT 1 FROM agentos.limits) THEN
        RETURN QUERY SELECT * FROM agentos.take_limited(p_worker, ARRAY(
            SELECT v.s * l.lane FROM agentos.lanes l CROSS JOIN (VALUES (1), (-1)) v(s)
             WHERE l.queue <> '@runner' AND (p_kinds IS NULL OR l.kind = ANY (p_kinds))
               AND NOT EXISTS (SELECT 1 FROM agentos.paused_queues p WHERE p.queue = l.queue)
               AND EXISTS (SELECT 1 FROM agentos.lane_limits x WHERE x.lane = l.lane)), 1, p_lease_s, NULL);
    END IF;
END $$;

-- What such a claim returns for rows it now holds, in the order of their rank.
CREATE FUNCTION agentos.claimed_rows(p_held agentos.lease_held[]) RETURNS SETOF agentos.claimed LANGUAGE sql AS $$
    SELECT h.item_id, h.token, h.lane, h.attempt, h.failures::integer, h.crashes::integer,
           (extract(epoch FROM h.claimed_at) * 1000000)::bigint,
           w.task_id, w.seq, w.key, l.queue, l.kind, w.payload::text, w.max_attempts::integer, w.timeout_s::float8,
           coalesce(t.cancel_requested OR t.status IS NOT NULL, false), coalesce(t.paused, false), l.version,
           NULL::bigint[], NULL::boolean, NULL::boolean
      FROM unnest(p_held) h
      JOIN agentos.work_items w USING (item_id)
      JOIN agentos.lanes l ON l.lane = abs(h.lane)
      LEFT JOIN agentos.task_heads t USING (task_id)
     ORDER BY h.rank, h.item_id
$$;

-- p_rows: ctids of lease_ready rows that this transaction has locked.
CREATE FUNCTION agentos.claim_rows_at(p_worker bigint, p_lease_s float8, p_rows tid[]) RETURNS SETOF agentos.claimed
LANGUAGE plpgsql AS $$
DECLARE v_held agentos.lease_held[]; v_taken bigint;
BEGIN
    WITH taken AS (DELETE FROM agentos.lease_ready WHERE ctid = ANY (p_rows) RETURNING *),
    held AS (
        INSERT INTO agentos.lease_held (item_id, worker_id, token, lane, rank, attempt, failures, crashes, started,
                                        claimed_at, expires_at)
        SELECT item_id, p_worker, gen_random_uuid(), lane, rank, attempt + 1, failures, crashes, true, t,
               t + make_interval(secs => p_lease_s)
          FROM taken CROSS JOIN agentos.clock() AS t ON CONFLICT DO NOTHING RETURNING *)
    SELECT (SELECT array_agg(held) FROM held), (SELECT count(*) FROM taken) INTO v_held, v_taken;
    PERFORM agentos.report_duplicates(p_worker, v_taken - coalesce(cardinality(v_held), 0));
    RETURN QUERY SELECT * FROM agentos.claimed_rows(v_held);
END $$;

-- Makes sure that a runner has something to claim: a task without items gets its planning item, in a queue no worker
-- serves. Refuses while somebody alive holds an item. Returns the status if the task has ended, else null.
CREATE FUNCTION agentos.begin_run(p_task text, p_worker bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_status text; v_holder text;
BEGIN
    PERFORM agentos.require_task(p_task);
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = p_task FOR UPDATE;
    SELECT t.status INTO v_status FROM agentos.tasks t WHERE t.task_id = p_task;
    IF v_status IN ('completed', 'failed', 'cancelled') THEN RETURN v_status; END IF;
    PERFORM agentos.refuse_held(p_task, p_worker);
    IF NOT EXISTS (SELECT 1 FROM agentos.work_items w WHERE w.task_id = p_task) THEN
        UPDATE agentos.task_heads t SET open_items = agentos.insert_items(p_task, '@runner',
            json_build_array(json_build_object('key', 'plan', 'kind', 'plan', 'payload',
                json_build_object('goal', r.title)))::text, agentos.rank_of(agentos.clock(), 0))
          FROM agentos.task_records r WHERE t.task_id = p_task AND r.task_id = p_task;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION agentos.require_task(p_task text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM agentos.task_records r WHERE r.task_id = p_task) THEN
        PERFORM agentos.refuse_retired(p_task);
        RAISE EXCEPTION 'no task has the id %', quote_literal(p_task) USING ERRCODE = 'AG003',
            HINT = 'create it first: TaskManager().create_task(title, task_id=...)';
    END IF;
END $$;

-- Raises when a living worker other than p_worker (null: any) holds an item of the task.
CREATE FUNCTION agentos.refuse_held(p_task text, p_worker bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_holder text;
BEGIN
    SELECT format('%s on %s (pid %s)', k.label, k.host, k.pid) INTO v_holder
      FROM agentos.work_items w JOIN agentos.lease_held h USING (item_id) JOIN agentos.workers k USING (worker_id)
     WHERE w.task_id = p_task AND h.worker_id IS DISTINCT FROM p_worker AND k.state IN ('alive', 'draining')
       AND least(k.expires_at, h.expires_at) > agentos.clock() LIMIT 1;
    IF v_holder IS NOT NULL THEN
        RAISE EXCEPTION 'task % is held by %', p_task, v_holder USING ERRCODE = 'AG002',
            HINT = 'wait until it ends (agentos wait ' || p_task || ') or cancel it (agentos cancel ' || p_task || ')';
    END IF;
END $$;
