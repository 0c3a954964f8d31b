-- open -> failed, all at once: what a runner does that has used up its iterations.

-- Refused while a living worker other than p_worker holds an item. Checkpoints, ledger and cache stay, so that
-- retry_task goes on from them. Returns how many items were still open; of a task that has ended, none.
CREATE FUNCTION agentos.give_up(p_task text, p_worker bigint, p_reason text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_ended bigint[];
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task);
    INSERT INTO agentos.task_heads (task_id) VALUES (p_task) ON CONFLICT DO NOTHING;
    PERFORM agentos.lock_family(ARRAY[p_task]);
    IF (SELECT t.status FROM agentos.tasks t WHERE t.task_id = p_task) IN ('completed', 'failed', 'cancelled') THEN
        RETURN 0;
    END IF;
    PERFORM agentos.refuse_held(p_task, p_worker);
    WITH free AS (
        DELETE FROM agentos.lease_ready r USING agentos.work_items w
         WHERE w.task_id = p_task AND r.item_id = w.item_id AND r.lane IN (w.lane, -w.lane) AND r.rank = w.rank
        RETURNING r.item_id, r.attempt, r.failures, r.crashes),
    late AS (
        DELETE FROM agentos.scheduled s USING agentos.work_items w
         WHERE w.task_id = p_task AND s.item_id = w.item_id RETURNING s.item_id, s.attempt, s.failures, s.crashes),
    parked AS (
        DELETE FROM agentos.waiting k WHERE k.task_id = p_task RETURNING k.item_id, k.attempt, k.failures, k.crashes),
    ended AS (
        INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at, error)
        SELECT e.item_id, e.attempt, e.failures, e.crashes, 'failed', agentos.clock(),
               json_build_object('type', 'GivenUp', 'message', p_reason)
          FROM (SELECT * FROM free UNION ALL SELECT * FROM late UNION ALL SELECT * FROM parked) e RETURNING item_id),
    waited AS (DELETE FROM agentos.waits w WHERE w.item_id IN (SELECT item_id FROM ended))
    SELECT coalesce(array_agg(item_id), '{}') FROM ended INTO v_ended;
    UPDATE agentos.task_heads t
       SET open_items = t.open_items - cardinality(v_ended), failed_items = t.failed_items + cardinality(v_ended),
           status = 'failed', reason = p_reason, finished_at = agentos.clock()
     WHERE t.task_id = p_task AND t.status IS NULL;
    PERFORM agentos.wake_parents(ARRAY[p_task]);
    PERFORM agentos.note(p_task, NULL, 'given_up', NULL, p_worker, json_build_object('reason', p_reason));
    RETURN cardinality(v_ended);
END $$;
