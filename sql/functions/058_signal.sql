-- Signals: kept until a wait takes them. One signal ends one wait.

-- Sends one. p_id: made by the sender; said again with the same one it is there once. Returns the items it woke.
CREATE FUNCTION agentos.signal(p_task text, p_name text, p_payload text, p_id uuid) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v_status text;
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task), agentos.lock_head(p_task);
    SELECT t.status INTO v_status FROM agentos.tasks t WHERE t.task_id = p_task;
    IF v_status IN ('completed', 'failed', 'cancelled')
       AND NOT EXISTS (SELECT 1 FROM agentos.signals s WHERE s.signal_id = p_id) THEN
        RAISE EXCEPTION 'task % is %: nothing can wait for a signal any more', p_task, v_status
            USING ERRCODE = 'AG007', HINT = 'see how it ended: agentos show ' || p_task;
    END IF;
    INSERT INTO agentos.signals (signal_id, task_id, name, payload, sent_at)
    VALUES (p_id, p_task, p_name, p_payload::json, agentos.clock()) ON CONFLICT DO NOTHING;
    RETURN agentos.deliver(p_task, p_name);
END $$;

-- The oldest signal of this name that nobody took, for this wait; null: there is none. The caller holds the head's lock.
CREATE FUNCTION agentos.take_signal(p_task text, p_name text, p_key text) RETURNS json LANGUAGE sql AS $$
    UPDATE agentos.signals s SET taken_by = p_key, taken_at = agentos.clock()
     WHERE s.signal_id = (SELECT f.signal_id FROM agentos.signals f
                           WHERE f.task_id = p_task AND f.name = p_name AND f.taken_by IS NULL ORDER BY f.seq LIMIT 1)
    RETURNING json_build_object('payload', s.payload, 'sent_at', s.sent_at)
$$;

-- Ends parked waits with the signals that are there, the longest wait with the oldest signal; the caller holds the
-- head's lock. An item that runs is left alone: its wait finds the signal when it asks.
CREATE FUNCTION agentos.deliver(p_task text, p_name text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v record; v_result json; v_woken bigint[] := '{}';
BEGIN
    FOR v IN SELECT w.ledger_key, w.item_id, k.reason FROM agentos.waits w JOIN agentos.waiting k USING (item_id)
              WHERE w.task_id = p_task AND w.reason = 'signal' AND w.name = p_name
              ORDER BY w.since, w.ledger_key FOR UPDATE OF k LOOP
        CONTINUE WHEN v.item_id = ANY (v_woken);
        v_result := agentos.take_signal(p_task, p_name, v.ledger_key);
        EXIT WHEN v_result IS NULL;
        PERFORM agentos.finish_wait(v.ledger_key, v_result);
        v_woken := v_woken || agentos.unpark(ARRAY[v.item_id], v.reason);
    END LOOP;
    RETURN v_woken;
END $$;

-- The net: parked waits for which a signal is there, or whose children have ended. No order of commits makes one; a
-- restored or hand-edited database can, and a fork that gathers a child of another task. Also drops waits of items that
-- have ended. Returns the items woken.
CREATE FUNCTION agentos.repair_waits(p_limit integer) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v record; v_woken bigint[] := '{}';
BEGIN
    FOR v IN SELECT DISTINCT w.task_id, w.name FROM agentos.waits w JOIN agentos.waiting k USING (item_id)
               JOIN agentos.signals s ON s.task_id = w.task_id AND s.name = w.name AND s.taken_by IS NULL
              WHERE w.reason = 'signal' ORDER BY 1, 2 LIMIT p_limit LOOP
        PERFORM agentos.lock_head(v.task_id);
        v_woken := v_woken || agentos.deliver(v.task_id, v.name);
    END LOOP;
    FOR v IN SELECT w.task_id, array_agg(w.item_id) AS items FROM agentos.waits w JOIN agentos.waiting k USING (item_id)
               JOIN agentos.tool_ledger l USING (ledger_key)
              WHERE w.reason = 'children' AND (agentos.children_result(w.ledger_key) IS NOT NULL
                    OR agentos.doomed_children(l.arguments) IS NOT NULL) GROUP BY 1 ORDER BY 1 LIMIT p_limit LOOP
        PERFORM agentos.lock_head(v.task_id);
        v_woken := v_woken || agentos.end_gathers(v.items);
    END LOOP;
    DELETE FROM agentos.waits w WHERE w.ledger_key IN (
        SELECT o.ledger_key FROM agentos.waits o WHERE EXISTS (
            SELECT 1 FROM agentos.outcomes e WHERE e.item_id = o.item_id) LIMIT p_limit);
    RETURN v_woken;
END $$;
