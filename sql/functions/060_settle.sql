-- What the end of an item means for its task and for the items that wait for it.

-- The heads are locked first (sorted) and read in later statements: two workers that end the last two items of a task
-- at once would otherwise each see the other's still open and leave the task open for ever. One-item tasks have no
-- counted head and cost one look.
CREATE FUNCTION agentos.settle(p_items bigint[], p_completed boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_tasks text[]; v_skipped bigint[];
BEGIN
    v_tasks := ARRAY(
        SELECT t.task_id FROM agentos.task_heads t
         WHERE t.task_id = ANY (ARRAY(SELECT w.task_id FROM agentos.work_items w WHERE w.item_id = ANY (p_items)))
           AND t.open_items IS NOT NULL);
    IF cardinality(v_tasks) = 0 THEN RETURN; END IF;
    PERFORM agentos.lock_family(v_tasks);
    IF p_completed THEN
        PERFORM agentos.ready_dependants(p_items);
    ELSE
        v_skipped := agentos.skip_dependants(p_items);
    END IF;
    WITH closed AS (
        SELECT w.task_id, count(*)::integer AS n FROM agentos.work_items w
         WHERE w.item_id = ANY (p_items || v_skipped) AND w.task_id = ANY (v_tasks) GROUP BY 1)
    UPDATE agentos.task_heads t
       SET open_items = t.open_items - c.n, failed_items = t.failed_items + CASE WHEN p_completed THEN 0 ELSE c.n END
      FROM closed c WHERE t.task_id = c.task_id;
    PERFORM agentos.finish_tasks(v_tasks);
END $$;

-- Heads with nothing open, or cancelled with nothing running, get their final status; the caller has locked them.
CREATE FUNCTION agentos.finish_tasks(p_tasks text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE agentos.task_heads t
       SET status = CASE WHEN t.expired THEN 'failed' WHEN t.cancel_requested THEN 'cancelled' WHEN t.failed_items > 0 THEN 'failed' ELSE 'completed' END,
           reason = CASE WHEN t.cancel_requested THEN coalesce(t.reason, 'cancelled')
                         WHEN t.failed_items > 0 THEN (
                              SELECT coalesce(w.key, w.item_id::text) || ': ' || coalesce(o.error ->> 'message', o.status)
                                FROM agentos.work_items w JOIN agentos.outcomes o USING (item_id)
                               WHERE w.task_id = t.task_id AND o.status IN ('failed', 'quarantined') ORDER BY w.seq LIMIT 1) END,
           finished_at = agentos.clock()
     WHERE t.task_id = ANY (p_tasks) AND t.status IS NULL
       AND (t.open_items = 0 OR t.cancel_requested AND NOT EXISTS (
                SELECT 1 FROM agentos.work_items w JOIN agentos.lease_held h USING (item_id) WHERE w.task_id = t.task_id));
    PERFORM agentos.wake_parents(p_tasks);
END $$;

CREATE FUNCTION agentos.ready_dependants(p_items bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_dependants bigint[];
BEGIN
    WITH met AS (
        SELECT d.item_id, count(*)::integer AS n FROM agentos.item_deps d WHERE d.needs = ANY (p_items) GROUP BY 1),
    counted AS (
        UPDATE agentos.waiting k SET pending = k.pending - m.n FROM met m
         WHERE k.item_id = m.item_id AND k.reason = 'dependencies' RETURNING k.item_id, k.pending)
    SELECT array_agg(item_id) FROM counted WHERE pending <= 0 INTO v_dependants;
    IF v_dependants IS NULL THEN RETURN; END IF;
    WITH woken AS (DELETE FROM agentos.waiting WHERE item_id = ANY (v_dependants) RETURNING *)
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, attempt, failures, crashes FROM woken ORDER BY item_id;
END $$;

-- Items that can never run, because something they need failed, end as skipped. Returns them.
CREATE FUNCTION agentos.skip_dependants(p_items bigint[]) RETURNS bigint[] LANGUAGE sql AS $$
    WITH RECURSIVE doomed AS (
        SELECT d.item_id, d.needs FROM agentos.item_deps d WHERE d.needs = ANY (p_items)
        UNION
        SELECT d.item_id, d.needs FROM doomed x JOIN agentos.item_deps d ON d.needs = x.item_id),
    gone AS (
        DELETE FROM agentos.waiting k WHERE k.item_id IN (SELECT item_id FROM doomed) RETURNING *),
    ended AS (
        INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at, error)
        SELECT g.item_id, g.attempt, g.failures, g.crashes, 'skipped', agentos.clock(),
               json_build_object('type', 'Skipped', 'message', 'an item it depends on did not complete')
          FROM gone g)
    SELECT coalesce(array_agg(item_id), '{}') FROM gone
$$;
