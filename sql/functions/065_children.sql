-- Child tasks: made under their parent's fence, told in the parent's ledger, and waited for as a row.
-- A task that is a child has a counted head, which names the parent: the end of any other task costs nothing for it.

-- Makes a child and records the call, in one commit. The same call finds the same child. Returns its id.
CREATE FUNCTION agentos.spawn(p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_call_key text,
                              p_ordinal integer, p_nth integer, p_arguments text, p_child text, p_title text, p_queue text,
                              p_priority integer, p_items text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_child text; v_items integer; v_tenant text; v_priority integer;
BEGIN
    PERFORM agentos.fence_live(p_item, p_worker, p_token), agentos.lock_head(p_task);
    PERFORM agentos.fence_live(p_item, p_worker, p_token);  -- again under the head's lock, which a cancel takes
    UPDATE agentos.tool_ledger l SET replays = l.replays + 1 WHERE l.ledger_key = p_key RETURNING l.result ->> 'task_id' INTO v_child;
    IF FOUND THEN RETURN v_child; END IF;
    v_child := agentos.child_id(p_task, p_child);
    PERFORM agentos.insert_record(v_child, p_items::json -> 0 ->> 'kind', p_title, p_items::json -> 0 -> 'payload', p_queue);
    INSERT INTO agentos.task_heads (task_id, open_items, parent_task, parent_item, paused)
    SELECT v_child, 0, p_task, p_item, t.paused FROM agentos.task_heads t WHERE t.task_id = p_task;
    SELECT * INTO v_tenant, v_priority FROM agentos.inherited(p_item);
    v_items := agentos.insert_items(v_child, p_queue, p_items,
                                    agentos.rank_of(agentos.clock(), coalesce(p_priority, v_priority)), v_tenant);
    UPDATE agentos.task_heads t SET open_items = v_items WHERE t.task_id = v_child;
    PERFORM agentos.inherit_budget(p_task, v_child);
    PERFORM agentos.set_deadline(ARRAY[v_child], d.s) FROM (SELECT (p_items::json -> 0 ->> 'deadline_s')::float8) AS d(s)
      WHERE d.s IS NOT NULL;
    INSERT INTO agentos.tool_ledger (ledger_key, task_id, item_id, tool_name, call_key, ordinal, nth, arguments, state, on_doubt,
        idempotency_key, produces, result, worker_id, token, call_token, begun_at, finished_at, expires_at)
    VALUES (p_key, p_task, p_item, '@spawn', p_call_key, p_ordinal, p_nth, p_arguments::json, 'finished', 'retry', p_key, '[]',
            json_build_object('task_id', v_child), p_worker, p_token, gen_random_uuid(), agentos.clock(), agentos.clock(),
            'infinity');
    RETURN v_child;
END $$;

-- Whose work an item is, and how urgent: what its task's children get, too. The priority is told by the rank, which is made
-- of it and of the time at which the task was made, in the same moment but for some microseconds.
CREATE FUNCTION agentos.inherited(p_item bigint, OUT tenant text, OUT priority integer) LANGUAGE sql AS $$
    SELECT l.fairness_key, round((agentos.rank_of(r.created_at, 0) - w.rank) / 60000000.0)::integer
      FROM agentos.work_items w JOIN agentos.lanes l USING (lane) JOIN agentos.task_records r USING (task_id)
     WHERE w.item_id = p_item
$$;

-- The id of a child that is to be made: p_child, unless the parent has one of that name already: its call was set aside
-- by a rewind that executes it again. The caller has locked the parent's head.
CREATE FUNCTION agentos.child_id(p_task text, p_child text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM agentos.task_heads t WHERE t.task_id = p_child AND t.parent_task = p_task)
                THEN p_child
                ELSE (SELECT p_child || '-' || count(*) + 1 FROM agentos.task_heads t
                       WHERE t.parent_task = p_task AND (t.task_id = p_child OR t.task_id LIKE p_child || '-%')) END
$$;

-- How the children of a gather ended, in its order; null: one of them has not.
CREATE FUNCTION agentos.children_result(p_key text) RETURNS json LANGUAGE sql AS $$
    SELECT CASE WHEN bool_and(t.status IS NOT NULL) THEN json_build_object('children', json_agg(json_build_object(
               'task_id', c.task_id, 'status', t.status, 'reason', t.reason, 'ended_at', t.finished_at,
               'result', agentos.child_result(c.task_id)) ORDER BY c.n)) END
      FROM agentos.tool_ledger l
     CROSS JOIN LATERAL json_array_elements_text(l.arguments -> 'children') WITH ORDINALITY AS c(task_id, n)
      LEFT JOIN agentos.task_heads t ON t.task_id = c.task_id
     WHERE l.ledger_key = p_key
$$;

-- The children that a gather with on_failure "cancel" is to cancel: one of it did not complete, and these have neither
-- ended nor been told. Null, when there are none.
CREATE FUNCTION agentos.doomed_children(p_arguments json) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(t.task_id ORDER BY t.task_id) FILTER (WHERE t.status IS NULL AND NOT t.cancel_requested)
      FROM json_array_elements_text(p_arguments -> 'children') AS c(task_id) JOIN agentos.task_heads t USING (task_id)
     WHERE p_arguments ->> 'on_failure' = 'cancel' HAVING bool_or(t.status <> 'completed')
$$;

-- What a gather that is not over does before it waits: locks its task's head, as every wait does; and when one of its children did not
-- complete, cancels the others. By the parent, under its lease and with all of these heads locked in one order: the child
-- that failed holds its own head and its parent's, and two of them that cancelled each other would lock crosswise. Died
-- before the commit, the parent is claimed again and does it; after it, they are told.
CREATE FUNCTION agentos.lock_gather(p_key text, p_task text, p_arguments json) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_doomed text[] := agentos.doomed_children(p_arguments);
BEGIN
    IF v_doomed IS NULL OR EXISTS (
        SELECT 1 FROM agentos.tool_ledger l WHERE l.ledger_key = p_key AND l.state = 'finished') THEN
        PERFORM agentos.lock_head(p_task);
        RETURN;
    END IF;
    PERFORM 1 FROM agentos.task_heads t
      WHERE t.task_id = p_task OR t.task_id IN (SELECT unnest(agentos.descendants(d)) FROM unnest(v_doomed) d)
      ORDER BY t.task_id FOR UPDATE;
    PERFORM agentos.cancel_task(d, format('a child task of %s that was gathered with it did not complete', p_task))
       FROM unnest(agentos.doomed_children(p_arguments)) d;
END $$;

-- Of a child of one item its result; of one that grew an object of them by key.
CREATE FUNCTION agentos.child_result(p_task text) RETURNS json LANGUAGE sql AS $$
    SELECT CASE WHEN count(*) = 1 THEN (array_agg(o.result))[1]
                ELSE json_object_agg(coalesce(w.key, w.seq::text), o.result ORDER BY w.seq) END
      FROM agentos.work_items w LEFT JOIN agentos.outcomes o USING (item_id) WHERE w.task_id = p_task
$$;

-- Some of these tasks may have ended just now: parents parked for the last of their children are ready again, and those
-- that are to cancel the others. In the transaction of that end, and under the parents' heads, which who waits has locked
-- too.
CREATE FUNCTION agentos.wake_parents(p_tasks text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM agentos.task_heads t
      WHERE t.task_id IN (SELECT c.parent_task FROM agentos.task_heads c WHERE c.task_id = ANY (p_tasks) AND c.status IS NOT NULL)
      ORDER BY t.task_id FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM agentos.end_gathers(ARRAY(SELECT c.parent_item FROM agentos.task_heads c WHERE c.task_id = ANY (p_tasks)));
END $$;

-- Of these items those whose gathered children have ended, or are to be cancelled, are ready again; the caller holds the
-- locks of their tasks' heads. Returns them.
CREATE FUNCTION agentos.end_gathers(p_items bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v record; v_result json; v_woken bigint[] := '{}';
BEGIN
    FOR v IN SELECT w.ledger_key, w.item_id, k.reason, l.arguments
               FROM agentos.waits w JOIN agentos.waiting k USING (item_id) JOIN agentos.tool_ledger l USING (ledger_key)
              WHERE w.reason = 'children' AND w.item_id = ANY (p_items) ORDER BY w.item_id FOR UPDATE OF k LOOP
        v_result := agentos.children_result(v.ledger_key);
        CONTINUE WHEN v_result IS NULL AND agentos.doomed_children(v.arguments) IS NULL;
        IF v_result IS NOT NULL THEN PERFORM agentos.finish_wait(v.ledger_key, v_result); END IF;
        v_woken := v_woken || agentos.unpark(ARRAY[v.item_id], v.reason);
    END LOOP;
    RETURN v_woken;
END $$;

-- Locks, in their order, the heads that the end of these tasks touches: their own and their parents'.
CREATE FUNCTION agentos.lock_family(p_tasks text[]) RETURNS void LANGUAGE sql AS $$
    SELECT 1 FROM agentos.task_heads t
     WHERE t.task_id = ANY (p_tasks || ARRAY(SELECT c.parent_task FROM agentos.task_heads c
                                              WHERE c.task_id = ANY (p_tasks) AND c.parent_task IS NOT NULL))
     ORDER BY t.task_id FOR UPDATE
$$;

-- A task, its children, and theirs.
CREATE FUNCTION agentos.descendants(p_task text) RETURNS text[] LANGUAGE sql AS $$
    WITH RECURSIVE below AS (
        SELECT p_task AS task_id
        UNION
        SELECT t.task_id FROM below b JOIN agentos.task_heads t ON t.parent_task = b.task_id)
    SELECT array_agg(task_id) FROM below
$$;

CREATE FUNCTION agentos.cancel_children(p_task text, p_reason text) RETURNS void LANGUAGE sql AS $$
    SELECT agentos.cancel_task(t.task_id, p_reason) FROM agentos.task_heads t
     WHERE t.parent_task = p_task AND t.status IS NULL ORDER BY t.task_id
$$;

-- A retry opens the children that did not complete, too, and gathers them again.
CREATE FUNCTION agentos.retry_children(p_task text, p_items bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM agentos.tool_ledger l WHERE l.item_id = ANY (p_items) AND l.tool_name = '@gather' AND EXISTS (
        SELECT 1 FROM json_array_elements(l.result -> 'children') c WHERE c ->> 'status' <> 'completed');
    PERFORM agentos.retry_task(t.task_id) FROM agentos.task_heads t
      WHERE t.parent_item = ANY (p_items) AND t.parent_task = p_task AND t.status IN ('failed', 'cancelled') ORDER BY t.task_id;
END $$;
