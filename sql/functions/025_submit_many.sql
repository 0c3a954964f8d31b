-- Many tasks of one item each, of one kind: the rows of `submit`, in as many statements for one task as for thousands.

-- p_tasks and p_payloads go together by place. All or nothing. Returns the items' ids in that order.
CREATE FUNCTION agentos.submit_many(p_tasks text[], p_kind text, p_title text, p_payloads text[], p_queue text,
                                    p_priority integer, p_max_attempts integer, p_timeout_s real, p_delay_s float8)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    v_items bigint[] := ARRAY(SELECT nextval('agentos.item_ids') FROM generate_subscripts(p_tasks, 1));
    v_lane integer := agentos.lane_of(p_queue, p_kind);
    v_rank bigint := agentos.rank_of(agentos.clock(), p_priority);
BEGIN
    PERFORM agentos.insert_records(p_tasks, p_kind, p_title, p_queue, v_items);
    INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, timeout_s, rank, payload)
    SELECT u.item_id, u.task_id, 1, v_lane, p_max_attempts, true, p_timeout_s, v_rank, u.payload::json
      FROM unnest(v_items, p_tasks, p_payloads) AS u(item_id, task_id, payload);
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
