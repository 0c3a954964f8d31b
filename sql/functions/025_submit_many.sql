-- Many tasks of one item each, of one kind: the rows of `submit`, in as many statements for one task as for thousands.

-- p_payloads: a JSON array, one for each of p_tasks; as text[] each would be escaped by one side and unescaped by the
-- other. All or nothing. Returns the items' ids in the order of p_tasks.
CREATE FUNCTION agentos.submit_many(p_tasks text[], p_kind text, p_title text, p_payloads text, p_queue text,
                                    p_priority integer, p_max_attempts integer, p_timeout_s real, p_delay_s float8,
                                    p_version integer, p_tenant text DEFAULT '', p_key text DEFAULT '')
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_items bigint[] := ARRAY(SELECT nextval('agentos.item_ids') FROM generate_subscripts(p_tasks, 1));
    v_lane integer := agentos.lane_of(p_queue, p_kind, p_version, p_tenant, p_key);
    v_rank bigint := agentos.rank_of(agentos.clock(), p_priority);
BEGIN
    PERFORM agentos.admit_depth(p_queue, l.max_depth, cardinality(p_tasks)) FROM agentos.lanes l
      WHERE l.lane = v_lane AND l.max_depth IS NOT NULL AND p_delay_s <= 0;
    PERFORM agentos.insert_records(p_tasks, p_kind, p_title, p_queue, v_items);
    INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, timeout_s, rank, payload)
    SELECT u.item_id, u.task_id, 1, v_lane, p_max_attempts, true, p_timeout_s, v_rank, u.payload
      FROM ROWS FROM (unnest(v_items), unnest(p_tasks), json_array_elements(p_payloads::json))
           AS u(item_id, task_id, payload);
    IF p_delay_s > 0 THEN
        INSERT INTO agentos.scheduled (item_id, run_at, lane, rank, attempt, failures, crashes)
        SELECT i, t + make_interval(secs => p_delay_s), v_lane, v_rank, 0, 0, 0
          FROM agentos.clock() AS t, unnest(v_items) AS i;
    ELSE
        INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
        SELECT v_lane, v_rank, nextval('agentos.ready_seqs'), i, 0, 0, 0 FROM unnest(v_items) AS i;
    END IF;
    RETURN v_items;
END $$;

-- One subtransaction for all of them. ON CONFLICT, as `insert_record` has it, inserts every row speculatively: twice
-- the time for each.
CREATE FUNCTION agentos.insert_records(p_tasks text[], p_kind text, p_title text, p_queue text, p_items bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_taken text;
BEGIN
    INSERT INTO agentos.task_records (task_id, kind, title, queue, single, created_at)
    SELECT u.task_id, p_kind, p_title, p_queue, u.item_id, t
      FROM agentos.clock() AS t, unnest(p_tasks, p_items) AS u(task_id, item_id);
EXCEPTION WHEN unique_violation THEN
    SELECT r.task_id INTO v_taken FROM agentos.task_records r WHERE r.task_id = ANY (p_tasks) LIMIT 1;
    IF v_taken IS NOT NULL THEN
        RAISE EXCEPTION 'task % exists already', v_taken
            USING ERRCODE = 'AG006', HINT = 'choose another task_id, or leave it out and one is made';
    END IF;
    SELECT u INTO v_taken FROM unnest(p_tasks) u GROUP BY u HAVING count(*) > 1 LIMIT 1;
    RAISE EXCEPTION 'task % is to be made twice', v_taken
        USING ERRCODE = 'AG006', HINT = 'give each task an id of its own, or leave them out and they are made';
END $$;

-- Items that depend on none, for a task that is open; `insert_items` is for all others. p_payloads: a JSON array.
-- p_queues, p_attempts, p_timeouts and p_versions may have nulls. Returns how many there were.
CREATE FUNCTION agentos.add_items(p_task text, p_queue text, p_priority integer, p_keys text[], p_kinds text[],
                                  p_payloads text, p_queues text[], p_attempts integer[], p_timeouts real[],
                                  p_versions integer[])
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_first integer; v_rank bigint := agentos.rank_of(agentos.clock(), p_priority);
BEGIN
    IF EXISTS (SELECT 1 FROM agentos.queue_credits) THEN
        PERFORM agentos.admit_plan(ARRAY(SELECT coalesce(q, p_queue) FROM unnest(p_queues) q));
    END IF;
    v_first := agentos.grow(p_task, cardinality(p_keys));
    WITH lanes AS MATERIALIZED (
        SELECT d.queue, d.kind, d.version, agentos.lane_of(d.queue, d.kind, d.version) AS lane
          FROM (SELECT DISTINCT coalesce(i.queue, p_queue) AS queue, i.kind, i.version
                  FROM unnest(p_queues, p_kinds, p_versions) i(queue, kind, version)) d),
    made AS (
        INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, timeout_s, rank, key, payload)
        SELECT nextval('agentos.item_ids'), p_task, v_first + i.n, l.lane, coalesce(i.attempts, 5), false, i.timeout_s,
               v_rank, i.key, i.payload
          FROM ROWS FROM (unnest(p_keys), unnest(p_kinds), json_array_elements(p_payloads::json), unnest(p_queues),
                          unnest(p_attempts), unnest(p_timeouts), unnest(p_versions)) WITH ORDINALITY
               AS i(key, kind, payload, queue, attempts, timeout_s, version, n)
          LEFT JOIN lanes l ON l.kind = i.kind AND l.queue = coalesce(i.queue, p_queue)
           AND coalesce(l.version, -1) = coalesce(i.version, -1)
         ORDER BY i.n
        RETURNING item_id, lane)
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT lane, v_rank, nextval('agentos.ready_seqs'), item_id, 0, 0, 0 FROM made;
    RETURN cardinality(p_keys);
EXCEPTION WHEN unique_violation THEN
    PERFORM agentos.key_is_taken(p_task);
END $$;

-- The same for items of one kind that say nothing but key and payload: p_keys and p_payloads are JSON arrays, because the
-- client spends more on the elements of an SQL array than on the rest of an item. A fifth less of the server, too.
CREATE FUNCTION agentos.add_alike(p_task text, p_queue text, p_priority integer, p_kind text, p_keys text, p_payloads text)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_items bigint[] := ARRAY(SELECT nextval('agentos.item_ids') FROM generate_series(1, json_array_length(p_keys::json)));
    v_lane integer := agentos.lane_of(p_queue, p_kind, NULL);
    v_rank bigint := agentos.rank_of(agentos.clock(), p_priority);
    v_first integer;
BEGIN
    PERFORM agentos.admit_depth(p_queue, l.max_depth, cardinality(v_items)) FROM agentos.lanes l
      WHERE l.lane = v_lane AND l.max_depth IS NOT NULL;
    v_first := agentos.grow(p_task, cardinality(v_items));
    INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, rank, key, payload)
    SELECT i.item_id, p_task, v_first + i.n, v_lane, 5, false, v_rank, i.key, i.payload
      FROM ROWS FROM (unnest(v_items), json_array_elements_text(p_keys::json), json_array_elements(p_payloads::json))
           WITH ORDINALITY AS i(item_id, key, payload, n);
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT v_lane, v_rank, nextval('agentos.ready_seqs'), i, 0, 0, 0 FROM unnest(v_items) AS i;
    RETURN cardinality(v_items);
EXCEPTION WHEN unique_violation THEN
    PERFORM agentos.key_is_taken(p_task);
END $$;

-- Locks the task's head and counts so many items more. Returns the place of its last one.
CREATE FUNCTION agentos.grow(p_task text, p_items integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    UPDATE agentos.task_heads SET open_items = open_items + p_items
     WHERE task_id = p_task AND status IS NULL AND NOT cancel_requested;
    IF NOT FOUND THEN PERFORM agentos.require_open(p_task); END IF;
    RETURN (SELECT coalesce(max(w.seq), 0) FROM agentos.work_items w WHERE w.task_id = p_task);
END $$;

CREATE FUNCTION agentos.key_is_taken(p_task text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'task % has an item with one of these keys, or one of them is there twice', p_task
        USING ERRCODE = 'AG009', HINT = 'give each item a key of its own';
END $$;

CREATE FUNCTION agentos.require_open(p_task text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_task(p_task);
    RAISE EXCEPTION 'task % takes no more items: it has ended, is cancelled, or is a task of one item', p_task
        USING ERRCODE = 'AG011', HINT = 'create another task; a handler adds items to its own with ctx.expand';
END $$;
