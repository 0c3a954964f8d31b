-- nothing -> ready | waiting | scheduled

-- p_version: of the handler that must run it. Null: the submitter has no handler, see `newest_version`.
CREATE FUNCTION agentos.lane_of(p_queue text, p_kind text, p_version integer, p_tenant text DEFAULT '', p_key text DEFAULT '')
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_lane integer; v_version integer;
BEGIN
    SELECT l.lane, l.version INTO v_lane, v_version FROM agentos.lanes l
      WHERE l.queue = p_queue AND l.kind = p_kind AND l.version = coalesce(p_version, l.version) AND l.fairness_key = p_tenant
        AND l.limit_key = p_key
      ORDER BY l.version DESC LIMIT 1;
    IF v_lane IS NULL OR p_version IS NULL AND v_version > 0 THEN
        v_lane := agentos.lane_of_version(p_queue, p_kind, coalesce(p_version, agentos.newest_version(p_queue, p_kind)),
                                          p_tenant, p_key);
    END IF;
    RETURN v_lane;
END $$;

-- Found, or made.
CREATE FUNCTION agentos.lane_of_version(p_queue text, p_kind text, p_version integer, p_tenant text, p_key text)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_lane integer;
BEGIN
    INSERT INTO agentos.lanes (queue, kind, version, fairness_key, limit_key, max_depth)
    SELECT p_queue, p_kind, p_version, p_tenant, p_key, (
               SELECT x.most FROM agentos.limits x WHERE x.scope = 'queue' AND x.name = p_queue AND x.measure = 'depth')
     WHERE NOT EXISTS (
               SELECT 1 FROM agentos.lanes l
                WHERE l.queue = p_queue AND l.kind = p_kind AND l.version = p_version AND l.fairness_key = p_tenant
                  AND l.limit_key = p_key)
        ON CONFLICT DO NOTHING;
    SELECT l.lane INTO v_lane FROM agentos.lanes l
      WHERE l.queue = p_queue AND l.kind = p_kind AND l.version = p_version AND l.fairness_key = p_tenant
        AND l.limit_key = p_key;
    RETURN v_lane;
END $$;

-- The newest version of a kind that a worker of this queue runs: one that lives; is there none, one that did within the
-- last day; else 0. Outside the hot path: only asked when the kind has a lane of another version than 0, or none.
CREATE FUNCTION agentos.newest_version(p_queue text, p_kind text) RETURNS integer LANGUAGE sql AS $$
    SELECT coalesce((
        SELECT coalesce(v.version::integer, 0)
          FROM agentos.workers w
          LEFT JOIN LATERAL json_array_elements_text(w.serves -> 'versions' -> p_kind) AS v(version) ON true
         WHERE p_queue IN (SELECT json_array_elements_text(w.serves -> 'queues'))
           AND p_kind IN (SELECT json_array_elements_text(w.serves -> 'kinds'))
         ORDER BY w.state = 'alive' AND w.expires_at > agentos.clock() DESC, v.version::integer DESC NULLS LAST LIMIT 1), 0)
$$;

-- Of each queue with each kind in its version (the arrays of both go together; without one: the newest). Missing lanes
-- are made.
CREATE FUNCTION agentos.lanes_of(p_queues text[], p_kinds text[], p_versions integer[]) RETURNS TABLE (lane integer)
LANGUAGE sql AS $$
    SELECT agentos.lane_of(q, k.kind, k.version)
      FROM unnest(p_queues) q CROSS JOIN unnest(p_kinds, p_versions) AS k(kind, version) WHERE k.kind IS NOT NULL
$$;

-- Whether a lane is to be made in a transaction of its own before one that stays open inserts tasks: whoever else makes
-- it waits for the COMMIT of him who did. Not for a fixed snapshot, which would not see it.
CREATE FUNCTION agentos.lane_is_missing(p_queue text, p_kind text, p_version integer, p_tenant text, p_key text)
RETURNS boolean LANGUAGE sql AS $$
    SELECT current_setting('transaction_isolation') = 'read committed' AND NOT EXISTS (
        SELECT 1 FROM agentos.lanes l
         WHERE l.queue = p_queue AND l.kind = p_kind AND l.fairness_key = p_tenant AND l.limit_key = p_key
           AND l.version = coalesce(p_version, agentos.newest_version(p_queue, p_kind)))
$$;

-- p_hand: to a worker that waits for it, if there is one; else, and as a rule, it is made ready.
-- One task of one item: three rows. `insert_record` and `lane_of` are written out: a call of a function within one costs
-- 10 us, a tenth of all that the server does here.
CREATE FUNCTION agentos.submit(p_task text, p_kind text, p_title text, p_payload text, p_queue text, p_priority integer,
                               p_max_attempts integer, p_timeout_s real, p_delay_s float8, p_version integer DEFAULT NULL,
                               p_tenant text DEFAULT '', p_key text DEFAULT '', p_hand boolean DEFAULT false)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_item bigint := nextval('agentos.item_ids');
    v_at timestamptz := agentos.clock();
    v_rank bigint := agentos.rank_of(v_at, p_priority);
    v_lane integer; v_most integer;
BEGIN
    SELECT l.lane, l.max_depth INTO v_lane, v_most FROM agentos.lanes l
      WHERE l.queue = p_queue AND l.kind = p_kind AND l.version = p_version AND l.fairness_key = p_tenant
        AND l.limit_key = p_key;
    IF v_lane IS NULL THEN
        v_lane := agentos.lane_of(p_queue, p_kind, p_version, p_tenant, p_key);
        SELECT l.max_depth INTO v_most FROM agentos.lanes l WHERE l.lane = v_lane;
    END IF;
    IF v_most IS NOT NULL AND p_delay_s <= 0 THEN PERFORM agentos.admit_depth(p_queue, v_most, 1); END IF;
    INSERT INTO agentos.task_records (task_id, kind, title, queue, single, created_at)
    VALUES (p_task, p_kind, p_title, p_queue, v_item, v_at) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task % exists already', p_task
            USING ERRCODE = 'AG006', HINT = 'choose another task_id, or leave it out and one is made';
    END IF;
    INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, timeout_s, rank, payload)
    VALUES (v_item, p_task, 1, v_lane, p_max_attempts, true, p_timeout_s, v_rank, p_payload::json);
    IF p_delay_s > 0 THEN
        INSERT INTO agentos.scheduled (item_id, run_at, lane, rank, attempt, failures, crashes)
        VALUES (v_item, v_at + make_interval(secs => p_delay_s), v_lane, v_rank, 0, 0, 0);
    ELSIF NOT p_hand OR NOT agentos.hand_over(v_item, v_lane, v_rank, v_at) THEN
        INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
        VALUES (v_lane, v_rank, nextval('agentos.ready_seqs'), v_item, 0, 0, 0);
    END IF;
    RETURN v_item;
END $$;

-- ON CONFLICT and not an EXCEPTION block: that would be a subtransaction, and an xid more, per task.
CREATE FUNCTION agentos.insert_record(p_task text, p_kind text, p_title text, p_payload json, p_queue text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agentos.task_records (task_id, kind, title, payload, queue, created_at)
    VALUES (p_task, p_kind, p_title, p_payload, p_queue, agentos.clock()) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task % exists already', p_task
            USING ERRCODE = 'AG006', HINT = 'choose another task_id, or leave it out and one is made';
    END IF;
END $$;

-- A task of any number of items (none: created, nothing claimable). p_items: [{key, kind, payload, depends_on, queue,
-- max_attempts, timeout_s, version, tenant, limit_key}].
CREATE FUNCTION agentos.create_task(p_task text, p_title text, p_kind text, p_payload text, p_queue text, p_items text,
                                    p_priority integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_items integer;
BEGIN
    IF EXISTS (SELECT 1 FROM agentos.queue_credits) THEN
        PERFORM agentos.admit_plan(ARRAY(SELECT coalesce(i.queue, p_queue) FROM unnest(agentos.plan_rows(p_items, 0)) i));
    END IF;
    PERFORM agentos.insert_record(p_task, p_kind, p_title, p_payload::json, p_queue);
    INSERT INTO agentos.task_heads (task_id, open_items) VALUES (p_task, 0);
    v_items := agentos.insert_items(p_task, p_queue, p_items, agentos.rank_of(agentos.clock(), p_priority));
    UPDATE agentos.task_heads SET open_items = v_items WHERE task_id = p_task;
    RETURN v_items;
END $$;

CREATE TYPE agentos.plan_row AS (
    n integer, key text, kind text, payload json, depends_on json, queue text, max_attempts integer, timeout_s real,
    version integer, tenant text, limit_key text
);

-- The items of p_items; one without a key gets 'item-N', N its place in the task, one without a tenant p_tenant.
CREATE FUNCTION agentos.plan_rows(p_items text, p_first integer, p_tenant text DEFAULT '') RETURNS agentos.plan_row[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg((i.n, coalesce(i.key, 'item-' || (p_first + i.n)), i.kind, coalesce(i.payload, '{}'), i.depends_on,
                               i.queue, coalesce(i.max_attempts, 5), i.timeout_s, i.version, coalesce(i.tenant, p_tenant),
                               coalesce(i.limit_key, ''))::agentos.plan_row ORDER BY i.n), '{}')
      FROM ROWS FROM (json_to_recordset(p_items::json) AS (key text, kind text, payload json, depends_on json, queue text,
                      max_attempts integer, timeout_s real, version integer, tenant text, limit_key text)) WITH ORDINALITY
           AS i(key, kind, payload, depends_on, queue, max_attempts, timeout_s, version, tenant, limit_key, n)
$$;

-- Adds items to a task whose head the caller has locked or just made. An item whose key the task already has is left
-- as it is, so that a planner that died after its commit may say the same again: looked up under that lock, because ON
-- CONFLICT inserts speculatively, at twice the price. Returns how many were new.
CREATE FUNCTION agentos.insert_items(p_task text, p_queue text, p_items text, p_rank bigint, p_tenant text DEFAULT '')
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_new bigint[]; v_first integer; v_twice text; v_rows agentos.plan_row[]; v_free boolean;
BEGIN
    SELECT coalesce(max(seq), 0) INTO v_first FROM agentos.work_items WHERE task_id = p_task;
    v_rows := agentos.plan_rows(p_items, v_first, p_tenant);
    SELECT i.key INTO v_twice FROM unnest(v_rows) i GROUP BY i.key HAVING count(*) > 1 LIMIT 1;
    IF v_twice IS NOT NULL THEN
        RAISE EXCEPTION 'two items have the key %', v_twice
            USING ERRCODE = 'AG009', HINT = 'give each item a key of its own';
    END IF;
    v_free := NOT EXISTS (SELECT 1 FROM unnest(v_rows) i WHERE json_array_length(i.depends_on) > 0);
    WITH lanes AS MATERIALIZED (
        SELECT d.*, agentos.lane_of(d.queue, d.kind, d.version, d.tenant, d.limit_key) AS lane
          FROM (SELECT DISTINCT coalesce(i.queue, p_queue) AS queue, i.kind, i.version, i.tenant, i.limit_key
                  FROM unnest(v_rows) i) d),
    made AS (
        INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, timeout_s, rank, key, payload)
        SELECT nextval('agentos.item_ids'), p_task, v_first + i.n, l.lane, i.max_attempts, false, i.timeout_s, p_rank, i.key,
               i.payload
          FROM unnest(v_rows) i
          LEFT JOIN lanes l ON l.kind = i.kind AND l.queue = coalesce(i.queue, p_queue)
           AND coalesce(l.version, -1) = coalesce(i.version, -1) AND (l.tenant, l.limit_key) = (i.tenant, i.limit_key)
         WHERE v_first = 0 OR NOT EXISTS (SELECT 1 FROM agentos.work_items w WHERE w.task_id = p_task AND w.key = i.key)
         ORDER BY i.n
        RETURNING item_id, lane),
    placed AS (
        INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
        SELECT lane, p_rank, nextval('agentos.ready_seqs'), item_id, 0, 0, 0 FROM made WHERE v_free)
    SELECT coalesce(array_agg(item_id), '{}') INTO v_new FROM made;
    IF NOT v_free THEN PERFORM agentos.insert_deps(p_task, v_rows, v_new), agentos.place_new(v_new); END IF;
    RETURN cardinality(v_new);
END $$;

-- The edges of new items (`depends_on`: keys of the same task); an item that was there keeps the needs it is counted by.
-- Cycles are refused before the call, where the plan is parsed; here an unknown key and an item that needs itself are.
CREATE FUNCTION agentos.insert_deps(p_task text, p_rows agentos.plan_row[], p_new bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v_bad text;
BEGIN
    WITH edges AS (
        SELECT i.key, d.needs FROM unnest(p_rows) i CROSS JOIN LATERAL json_array_elements_text(i.depends_on) AS d(needs)),
    resolved AS (
        SELECT e.needs, w.item_id, n.item_id AS needs_id FROM edges e
          JOIN agentos.work_items w ON w.task_id = p_task AND w.key = e.key
          LEFT JOIN agentos.work_items n ON n.task_id = p_task AND n.key = e.needs
         WHERE w.item_id = ANY (p_new)),
    made AS (
        INSERT INTO agentos.item_deps (needs, item_id)
        SELECT needs_id, item_id FROM resolved WHERE needs_id <> item_id ON CONFLICT DO NOTHING)
    SELECT min(needs) INTO v_bad FROM resolved WHERE needs_id IS NULL OR needs_id = item_id;
    IF v_bad IS NOT NULL THEN
        RAISE EXCEPTION 'an item depends on %, which is itself or which task % does not have', v_bad, p_task
            USING ERRCODE = 'AG009', HINT = 'depends_on takes keys of other items of the same task';
    END IF;
END $$;

CREATE FUNCTION agentos.place_new(p_items bigint[]) RETURNS void LANGUAGE sql AS $$
    WITH counted AS (
        SELECT w.*, (SELECT count(*) FROM agentos.item_deps d WHERE d.item_id = w.item_id
                        AND NOT EXISTS (SELECT 1 FROM agentos.outcomes o
                                         WHERE o.item_id = d.needs AND o.status = 'completed')) AS pending
          FROM agentos.work_items w WHERE w.item_id = ANY (p_items)),
    parked AS (
        INSERT INTO agentos.waiting (item_id, task_id, reason, pending, since, lane, rank, attempt, failures, crashes)
        SELECT item_id, task_id, 'dependencies', pending, agentos.clock(), lane, rank, 0, 0, 0 FROM counted WHERE pending > 0)
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, 0, 0, 0 FROM counted WHERE pending = 0 ORDER BY item_id
$$;

-- More items for the task of a held item: what a planner writes, under its fence. Makes a one-item task a task of many.
-- New items that need one that failed end as skipped here; nothing would ever end them later.
CREATE FUNCTION agentos.expand(p_item bigint, p_worker bigint, p_token uuid, p_items text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_task text := agentos.fence_live(p_item, p_worker, p_token);
    v_new integer; v_skipped integer; v_queue text; v_tenant text; v_rank bigint;
BEGIN
    IF EXISTS (SELECT 1 FROM json_to_recordset(p_items::json) AS i(key text) WHERE i.key IS NULL) THEN
        RAISE EXCEPTION 'an item added to task % has no key', v_task USING ERRCODE = 'AG009',
            HINT = 'give each a key: by it an attempt that says the same again finds what is there';
    END IF;
    INSERT INTO agentos.task_heads (task_id, open_items) VALUES (v_task, 1) ON CONFLICT DO NOTHING;
    UPDATE agentos.task_heads SET open_items = coalesce(open_items, 1) WHERE task_id = v_task;
    SELECT l.queue, l.fairness_key, w.rank INTO v_queue, v_tenant, v_rank
      FROM agentos.work_items w JOIN agentos.lanes l USING (lane) WHERE w.item_id = p_item;
    v_new := agentos.insert_items(v_task, v_queue, p_items, v_rank, v_tenant);
    v_skipped := cardinality(agentos.skip_dependants(ARRAY(
        SELECT w.item_id FROM agentos.work_items w JOIN agentos.outcomes o USING (item_id)
         WHERE w.task_id = v_task AND o.status <> 'completed')));
    UPDATE agentos.task_heads SET open_items = open_items + v_new - v_skipped, failed_items = failed_items + v_skipped
     WHERE task_id = v_task;
    RETURN v_new;
END $$;

-- Only the coordinator's and the submitter's hint: outside every hot transaction, because NOTIFY takes a global lock
-- at commit (inside submit it halves the rate).
CREATE FUNCTION agentos.wake(p_queues text[]) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('agentos_wake', q) FROM unnest(p_queues) q
$$;
