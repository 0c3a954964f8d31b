-- Deadlines: absolute, counted from the submit; retries, crashes and waits do not move them.

-- In the transaction that submits. A row of its own: tasks without a deadline pay nothing.
CREATE FUNCTION agentos.set_deadline(p_tasks text[], p_deadline_s float8) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.deadlines (task_id, deadline_at)
    SELECT t, agentos.clock() + make_interval(secs => p_deadline_s) FROM unnest(p_tasks) t
$$;

-- Ends what has passed its deadline, as a cancel does and as failed: parked and scheduled items end now, running ones are
-- told by the next beat, ready ones end when they are claimed. A process that dies before the commit leaves the row to the
-- next sweep. Returns how many tasks.
CREATE FUNCTION agentos.expire_tasks(p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v record; v_expired integer := 0;
BEGIN
    FOR v IN SELECT d.task_id, d.deadline_at FROM agentos.deadlines d
              WHERE d.task_id IN (SELECT e.task_id FROM agentos.deadlines e WHERE e.deadline_at <= (SELECT agentos.clock())
                                   ORDER BY e.deadline_at LIMIT p_limit)
              ORDER BY d.task_id FOR UPDATE OF d SKIP LOCKED LOOP
        DELETE FROM agentos.deadlines d WHERE d.task_id = v.task_id;
        CONTINUE WHEN (SELECT t.status FROM agentos.tasks t WHERE t.task_id = v.task_id) IN ('completed', 'failed', 'cancelled');
        PERFORM agentos.lock_head(v.task_id);
        UPDATE agentos.task_heads t SET expired = true WHERE t.task_id = v.task_id;
        PERFORM agentos.cancel_task(v.task_id, format('DeadlineExceeded: it had not ended by %s', v.deadline_at));
        v_expired := v_expired + 1;
    END LOOP;
    RETURN v_expired;
END $$;
