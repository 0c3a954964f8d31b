-- Retention of tasks. A family (a task with its child tasks, and theirs) that has ended long enough ago is retired: one
-- commit decides it, under its heads' locks, and leaves a row in retired_tasks; then its rows go in slices, whose end frees
-- its id. Its outcomes and events are not deleted: they go with the partition of their day. Nothing here trusts a
-- setting: what lives is found out from the rows, in the transaction that takes something away.

-- When a task ended; null: it has not, or is none. What `tasks` says, without looking at what an open task is doing.
CREATE FUNCTION agentos.ended_at(p_task text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN h.status IS NOT NULL THEN h.finished_at WHEN h.open_items IS NULL THEN o.finished_at END
      FROM agentos.task_records r
      LEFT JOIN agentos.task_heads h USING (task_id)
      LEFT JOIN agentos.outcomes o ON o.item_id = r.single AND o.status <> 'skipped'
     WHERE r.task_id = p_task
$$;

-- Whether all of these have ended by p_before, and nothing that has not may still ask for them: no parent, no fork that
-- is answered by their model outputs. What is being retired asks for nothing.
CREATE FUNCTION agentos.has_ended(p_tasks text[], p_before timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (
        SELECT 1 FROM (
            SELECT u AS task_id FROM unnest(p_tasks) u
            UNION SELECT h.parent_task FROM agentos.task_heads h WHERE h.task_id = ANY (p_tasks)
            UNION SELECT f.task_id FROM agentos.task_heads f WHERE f.outputs_of = ANY (p_tasks)) a
          JOIN agentos.task_records r USING (task_id)
         WHERE coalesce(agentos.ended_at(a.task_id) > p_before, true))
$$;

-- The family whose head is p_task, locked, if all of it has ended by p_before; null: it has not, it is below another task,
-- with which it is looked at, or somebody is at one of them: it is looked at again. Nothing that has a head is waited for:
-- many families are locked by one transaction, in no order that others keep.
CREATE FUNCTION agentos.ended_family(p_task text, p_before timestamptz) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE v_tasks text[];
BEGIN
    IF coalesce(agentos.ended_at(p_task) > p_before, true) OR EXISTS (
        SELECT 1 FROM agentos.task_heads h JOIN agentos.task_records r ON r.task_id = h.parent_task
         WHERE h.task_id = p_task) THEN RETURN NULL; END IF;
    v_tasks := agentos.descendants(p_task);
    IF NOT agentos.has_ended(v_tasks, p_before) THEN RETURN NULL; END IF;
    INSERT INTO agentos.task_heads (task_id) VALUES (p_task) ON CONFLICT DO NOTHING;  -- descendants have one
    IF cardinality(ARRAY(SELECT 1 FROM agentos.task_heads t WHERE t.task_id = ANY (v_tasks) FOR UPDATE SKIP LOCKED))
       + cardinality(ARRAY(SELECT 1 FROM agentos.task_records r WHERE r.task_id = ANY (v_tasks) FOR UPDATE SKIP LOCKED))
       < 2 * cardinality(v_tasks) THEN RETURN NULL; END IF;
    v_tasks := agentos.descendants(p_task);
    RETURN CASE WHEN agentos.has_ended(v_tasks, p_before) THEN v_tasks END;
END $$;

-- One slice of all tasks, oldest first, from after (p_at, p_task) on. Families that ended by p_before: p_kinds {tasks}
-- retires them, any of {checkpoints,ledger,cache} trims those records of theirs. One commit. The reply: how many tasks
-- were retired or trimmed, and where to go on; at null: that was the last. One caller at a time.
CREATE FUNCTION agentos.retire_slice(p_at timestamptz, p_task text, p_before timestamptz, p_kinds text[], p_limit integer,
                                     OUT at timestamptz, OUT task_id text, OUT count integer) LANGUAGE plpgsql AS $$
DECLARE v record; v_tasks text[] := '{}'; v_seen integer := 0; v_ok boolean := agentos.enter_fence();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('agentos.retention', 0));
    FOR v IN SELECT r.task_id, r.created_at FROM agentos.task_records r
              WHERE r.created_at >= coalesce(p_at, '-infinity') AND (r.created_at, r.task_id) > (coalesce(p_at, '-infinity'), p_task)
                AND r.created_at < p_before AND NOT EXISTS (
                    SELECT 1 FROM agentos.retired_tasks k WHERE k.task_id = r.task_id AND NOT k.cleared)
              ORDER BY r.created_at, r.task_id LIMIT p_limit LOOP
        at := v.created_at; task_id := v.task_id; v_seen := v_seen + 1;
        v_tasks := v_tasks || coalesce(agentos.ended_family(v.task_id, p_before), '{}');
    END LOOP;
    count := CASE WHEN 'tasks' = ANY (p_kinds) THEN agentos.retire_tasks(v_tasks) ELSE agentos.trim_tasks(v_tasks, p_kinds) END;
    IF v_seen < p_limit THEN at := NULL; END IF;
END $$;

-- The decision. From here on nothing opens or writes these tasks again, see `refuse_retired`.
CREATE FUNCTION agentos.retire_tasks(p_tasks text[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agentos.retired_tasks AS k (task_id, kind, status, created_at, finished_at, retired_at)
    SELECT t.task_id, t.kind, t.status, t.created_at, t.finished_at, agentos.clock() FROM agentos.tasks t
     WHERE t.task_id = ANY (p_tasks) ORDER BY t.task_id
    ON CONFLICT (task_id) DO UPDATE SET kind = excluded.kind, status = excluded.status, created_at = excluded.created_at,
       finished_at = excluded.finished_at, retired_at = excluded.retired_at, cleared = false;
    RETURN cardinality(p_tasks);
END $$;

-- Records go before their task. What is left could not be gone on from without doing again what they recorded, so the
-- task takes no retry, rewind or fork any more. Parts of large values go when nothing of the task names one. Returns how
-- many tasks had any.
CREATE FUNCTION agentos.trim_tasks(p_tasks text[], p_kinds text[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_trimmed text[]; v_left text[];
BEGIN
    WITH c AS (DELETE FROM agentos.checkpoints c WHERE c.task_id = ANY (p_tasks) AND 'checkpoints' = ANY (p_kinds)
               RETURNING c.task_id),
    l AS (DELETE FROM agentos.tool_ledger l WHERE l.task_id = ANY (p_tasks) AND 'ledger' = ANY (p_kinds) RETURNING l.task_id),
    m AS (DELETE FROM agentos.llm_cache m WHERE m.task_id = ANY (p_tasks) AND 'cache' = ANY (p_kinds) RETURNING m.task_id)
    SELECT coalesce(array_agg(DISTINCT g.task_id), '{}') INTO v_trimmed
      FROM (TABLE c UNION ALL TABLE l UNION ALL TABLE m) g;
    v_left := ARRAY(SELECT u FROM unnest(v_trimmed) u
                     WHERE NOT EXISTS (SELECT 1 FROM agentos.checkpoints c WHERE c.task_id = u)
                       AND NOT EXISTS (SELECT 1 FROM agentos.tool_ledger l WHERE l.task_id = u)
                       AND NOT EXISTS (SELECT 1 FROM agentos.llm_cache m WHERE m.task_id = u));
    PERFORM agentos.drop_blobs_of(v_left);
    UPDATE agentos.task_heads t SET trimmed_at = coalesce(t.trimmed_at, agentos.clock()) WHERE t.task_id = ANY (v_trimmed);
    RETURN cardinality(v_trimmed);
END $$;

-- Takes rows of retired tasks away: of p_tasks of them, p_rows of each table at most. One commit; who dies before it has
-- taken nothing. One caller at a time. Returns how many tasks are in work or done; 0: none is left.
CREATE FUNCTION agentos.clear_retired(p_tasks integer, p_rows integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_tasks text[]; v_ok boolean := agentos.enter_fence();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('agentos.retention', 0));
    v_tasks := ARRAY(SELECT k.task_id FROM agentos.retired_tasks k WHERE NOT k.cleared
                      ORDER BY k.retired_at LIMIT p_tasks FOR UPDATE);
    IF cardinality(v_tasks) = 0 THEN RETURN 0; END IF;
    PERFORM agentos.drop_blobs_of(v_tasks);
    IF agentos.clear_records(v_tasks, p_rows) + agentos.clear_items(v_tasks, p_rows) = 0 THEN
        DELETE FROM agentos.budgets b WHERE b.task_id = ANY (v_tasks);
        DELETE FROM agentos.budget_reservations b WHERE b.task_id = ANY (v_tasks);
        DELETE FROM agentos.traces t WHERE t.task_id = ANY (v_tasks);
        DELETE FROM agentos.deadlines d WHERE d.task_id = ANY (v_tasks);
        DELETE FROM agentos.submit_keys k WHERE k.task_id = ANY (v_tasks);
        DELETE FROM agentos.task_heads t WHERE t.task_id = ANY (v_tasks);
        DELETE FROM agentos.task_records r WHERE r.task_id = ANY (v_tasks);
        UPDATE agentos.retired_tasks k SET cleared = true WHERE k.task_id = ANY (v_tasks);
    END IF;
    RETURN cardinality(v_tasks);
END $$;

-- What their work recorded, p_rows of each table at most. Returns in how many tables that was not all.
CREATE FUNCTION agentos.clear_records(p_tasks text[], p_rows integer) RETURNS integer LANGUAGE sql AS $$
    WITH c AS (DELETE FROM agentos.checkpoints WHERE ctid = ANY (ARRAY(
               SELECT c.ctid FROM agentos.checkpoints c WHERE c.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1),
    l AS (DELETE FROM agentos.tool_ledger WHERE ctid = ANY (ARRAY(
               SELECT l.ctid FROM agentos.tool_ledger l WHERE l.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1),
    m AS (DELETE FROM agentos.llm_cache WHERE ctid = ANY (ARRAY(
               SELECT m.ctid FROM agentos.llm_cache m WHERE m.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1),
    d AS (DELETE FROM agentos.doubts WHERE ctid = ANY (ARRAY(
               SELECT d.ctid FROM agentos.doubts d WHERE d.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1),
    a AS (DELETE FROM agentos.approvals WHERE ctid = ANY (ARRAY(
               SELECT a.ctid FROM agentos.approvals a WHERE a.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1),
    s AS (DELETE FROM agentos.signals WHERE ctid = ANY (ARRAY(
               SELECT s.ctid FROM agentos.signals s WHERE s.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1),
    e AS (DELETE FROM agentos.events_kept WHERE ctid = ANY (ARRAY(
               SELECT e.ctid FROM agentos.events_kept e WHERE e.task_id = ANY (p_tasks) LIMIT p_rows)) RETURNING 1)
    SELECT count(*)::integer FROM (VALUES ((SELECT count(*) FROM c)), ((SELECT count(*) FROM l)), ((SELECT count(*) FROM m)),
           ((SELECT count(*) FROM d)), ((SELECT count(*) FROM a)), ((SELECT count(*) FROM s)), ((SELECT count(*) FROM e))) v(n)
     WHERE v.n >= p_rows
$$;

-- Their items, p_rows at most; outcomes only where they are kept, the others go with their day. Returns 1: not all.
CREATE FUNCTION agentos.clear_items(p_tasks text[], p_rows integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_items bigint[];
BEGIN
    v_items := ARRAY(SELECT w.item_id FROM agentos.work_items w WHERE w.task_id = ANY (p_tasks) LIMIT p_rows);
    DELETE FROM agentos.outcomes_kept o WHERE o.item_id = ANY (v_items);
    DELETE FROM agentos.item_deps d WHERE d.item_id = ANY (v_items);
    DELETE FROM agentos.work_items w WHERE w.item_id = ANY (v_items);
    RETURN (cardinality(v_items) >= p_rows)::integer;
END $$;

-- What is left to go by itself: rows of retired tasks, and what models cost, older than these days. Bounded; returns how many.
CREATE FUNCTION agentos.forget_retired(p_retired_before timestamptz, p_usage_before timestamptz, p_limit integer)
RETURNS integer LANGUAGE sql AS $$
    WITH k AS (DELETE FROM agentos.retired_tasks WHERE task_id = ANY (ARRAY(
                   SELECT k.task_id FROM agentos.retired_tasks k WHERE k.cleared AND k.retired_at < p_retired_before
                    ORDER BY k.retired_at LIMIT p_limit)) RETURNING 1),
    u AS (DELETE FROM agentos.llm_usage WHERE ctid = ANY (ARRAY(
                   SELECT u.ctid FROM agentos.llm_usage u WHERE u.day < (p_usage_before AT TIME ZONE 'UTC')::date
                      AND NOT EXISTS (SELECT 1 FROM agentos.task_records r WHERE r.task_id = u.task_id)
                    ORDER BY u.day LIMIT p_limit)) RETURNING 1)
    SELECT ((SELECT count(*) FROM k) + (SELECT count(*) FROM u))::integer
$$;

-- Said after the head's lock was taken: whoever retires has it, too.
CREATE FUNCTION agentos.refuse_retired(p_task text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v record; v_at timestamptz;
BEGIN
    SELECT * INTO v FROM agentos.retired_task(p_task);
    IF FOUND THEN
        RAISE EXCEPTION 'task % was retired at %, having been % at %', p_task, v.retired_at, v.status, v.finished_at USING ERRCODE = 'AG050',
            HINT = 'submit the work as a new task; how long ended tasks are kept: AGENTOS_RETENTION_TASKS_D';
    END IF;
    SELECT t.trimmed_at INTO v_at FROM agentos.task_heads t WHERE t.task_id = p_task;
    IF v_at IS NOT NULL THEN
        RAISE EXCEPTION 'records of task % were retired at %', p_task, v_at USING ERRCODE = 'AG050',
            HINT = 'without them its effects might be done again; submit the work as a new task';
    END IF;
END $$;

-- When the first records of a task that is there were retired; null: it has all.
CREATE FUNCTION agentos.records_retired_at(p_task text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT t.trimmed_at FROM agentos.task_heads t WHERE t.task_id = p_task
$$;

-- What is known of a task that was retired; no row: it was not.
CREATE FUNCTION agentos.retired_task(p_task text)
RETURNS TABLE (task_id text, kind text, status text, created_at timestamptz, finished_at timestamptz, retired_at timestamptz)
LANGUAGE sql AS $$
    SELECT k.task_id, k.kind, k.status, k.created_at, k.finished_at, k.retired_at FROM agentos.retired_tasks k
     WHERE k.task_id = p_task
       AND (NOT k.cleared OR NOT EXISTS (SELECT 1 FROM agentos.task_records r WHERE r.task_id = p_task))
$$;
