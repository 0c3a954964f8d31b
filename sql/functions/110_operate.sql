-- What people do to tasks.

-- Sets a flag, on its children too; it never searches ready rows. Parked items end now, running ones when their worker's next beat or fence
-- tells it, ready ones when they are claimed. Returns the task's status. What is held is looked for before the status:
-- the completion of a one-item task takes no head lock, and one that came between would be called cancelled.
CREATE FUNCTION agentos.cancel_task(p_task text, p_reason text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_status text; v_ended bigint[]; v_held boolean;
BEGIN
    PERFORM agentos.require_task(p_task);
    INSERT INTO agentos.task_heads (task_id) VALUES (p_task) ON CONFLICT DO NOTHING;
    PERFORM agentos.lock_family(agentos.descendants(p_task));
    v_held := EXISTS (SELECT 1 FROM agentos.work_items w JOIN agentos.lease_held h USING (item_id) WHERE w.task_id = p_task);
    SELECT t.status INTO v_status FROM agentos.tasks t WHERE t.task_id = p_task;
    IF v_status IN ('completed', 'failed', 'cancelled') THEN RETURN v_status; END IF;
    UPDATE agentos.task_heads t SET cancel_requested = true, reason = p_reason WHERE t.task_id = p_task;
    v_ended := agentos.end_parked(p_task);
    UPDATE agentos.task_heads t SET open_items = t.open_items - cardinality(v_ended) WHERE t.task_id = p_task;
    IF NOT v_held THEN
        UPDATE agentos.task_heads t SET status = CASE WHEN t.expired THEN 'failed' ELSE 'cancelled' END,
               finished_at = agentos.clock() WHERE t.task_id = p_task;
    END IF;
    PERFORM agentos.cancel_children(p_task, p_reason), agentos.wake_parents(ARRAY[p_task]);
    PERFORM agentos.note(p_task, NULL, 'cancelled', NULL, NULL, json_build_object('reason', p_reason));
    RETURN CASE WHEN v_held THEN 'running' ELSE 'cancelled' END;
END $$;

CREATE FUNCTION agentos.end_parked(p_task text) RETURNS bigint[] LANGUAGE sql AS $$
    WITH late AS (
        DELETE FROM agentos.scheduled s USING agentos.work_items w
         WHERE w.task_id = p_task AND s.item_id = w.item_id RETURNING s.item_id, s.attempt, s.failures, s.crashes),
    parked AS (
        DELETE FROM agentos.waiting k WHERE k.task_id = p_task RETURNING k.item_id, k.attempt, k.failures, k.crashes),
    ended AS (
        INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at)
        SELECT e.item_id, e.attempt, e.failures, e.crashes, 'cancelled', agentos.clock()
          FROM (SELECT * FROM late UNION ALL SELECT * FROM parked) e RETURNING item_id),
    waited AS (DELETE FROM agentos.waits w WHERE w.item_id IN (SELECT item_id FROM ended))
    SELECT coalesce(array_agg(item_id), '{}') FROM ended
$$;

-- A failed or cancelled task goes on: its items that did not complete are open again, counters at zero, checkpoints,
-- ledger and cache kept. Returns how many items. The former outcomes stay as events.
CREATE FUNCTION agentos.retry_task(p_task text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_status text; v_items bigint[];
BEGIN
    PERFORM agentos.require_task(p_task);
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = p_task FOR UPDATE;
    PERFORM 1 FROM agentos.task_records r WHERE r.task_id = p_task FOR SHARE;  -- a task without a head is retired here
    PERFORM agentos.refuse_purged(p_task), agentos.refuse_retired(p_task);
    SELECT t.status INTO v_status FROM agentos.tasks t WHERE t.task_id = p_task;
    IF v_status NOT IN ('failed', 'cancelled') THEN
        RAISE EXCEPTION 'task % is %, only a failed or cancelled task can be retried', p_task, v_status
            USING ERRCODE = 'AG011', HINT = 'see what it is doing: agentos show ' || p_task;
    END IF;
    PERFORM agentos.keep_wall(p_task, ARRAY(
        SELECT w.item_id FROM agentos.work_items w JOIN agentos.outcomes o USING (item_id)
         WHERE w.task_id = p_task AND o.status <> 'completed'));
    WITH gone AS (
        DELETE FROM agentos.outcomes o USING agentos.work_items w
         WHERE w.task_id = p_task AND o.item_id = w.item_id AND o.status <> 'completed' RETURNING o.*),
    noted AS (
        INSERT INTO agentos.events (task_id, item_id, at, event, attempt, worker_id, data)
        SELECT p_task, g.item_id, agentos.clock(), 'retried', g.attempt, g.worker_id,
               json_build_object('status', g.status, 'error', g.error) FROM gone g)
    SELECT coalesce(array_agg(item_id), '{}') FROM gone INTO v_items;
    PERFORM agentos.forget_refusals(v_items), agentos.retry_children(p_task, v_items);
    PERFORM agentos.reopen(p_task, v_items);
    UPDATE agentos.task_heads t SET status = NULL, reason = NULL, finished_at = NULL, cancel_requested = false, expired = false,
           paused = false, failed_items = 0,
           open_items = CASE WHEN t.open_items IS NULL THEN NULL ELSE agentos.count_open(p_task) END WHERE t.task_id = p_task;
    IF EXISTS (SELECT 1 FROM agentos.work_items w WHERE w.task_id = p_task) THEN
        PERFORM agentos.finish_tasks(ARRAY[p_task]);  -- all was completed before the cancel: nobody else would end it
    END IF;
    RETURN cardinality(v_items);
END $$;

-- What a person said no to is asked again, and what was waited for in vain is waited for again.
CREATE FUNCTION agentos.forget_refusals(p_items bigint[]) RETURNS void LANGUAGE sql AS $$
    WITH refused AS (DELETE FROM agentos.approvals a WHERE a.item_id = ANY (p_items) AND NOT coalesce(a.approved, false)
                     RETURNING a.ledger_key)
    DELETE FROM agentos.tool_ledger l WHERE l.item_id = ANY (p_items) AND l.tool_name IN ('@signal', '@approval')
       AND (l.ledger_key IN (SELECT ledger_key FROM refused) OR l.result ->> 'timed_out' = 'true')
$$;

CREATE FUNCTION agentos.reopen(p_task text, p_items bigint[]) RETURNS void LANGUAGE sql AS $$
    WITH counted AS (
        SELECT w.*, (SELECT max(e.attempt) FROM agentos.events e WHERE e.task_id = p_task AND e.item_id = w.item_id) AS attempt,
               (SELECT count(*)::integer FROM agentos.item_deps d WHERE d.item_id = w.item_id AND NOT EXISTS (
                    SELECT 1 FROM agentos.outcomes o WHERE o.item_id = d.needs AND o.status = 'completed')) AS pending
          FROM agentos.work_items w WHERE w.item_id = ANY (p_items)),
    parked AS (
        INSERT INTO agentos.waiting (item_id, task_id, reason, pending, since, lane, rank, attempt, failures, crashes)
        SELECT item_id, p_task, 'dependencies', pending, agentos.clock(), lane, rank, coalesce(attempt, 0), 0, 0
          FROM counted WHERE pending > 0)
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, coalesce(attempt, 0), 0, 0 FROM counted WHERE pending = 0
$$;
