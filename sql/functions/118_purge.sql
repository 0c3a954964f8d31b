-- Taking away what an ended task was about, and leaving what happened: who, when, how it ended, hashes, counts, costs.

CREATE FUNCTION agentos.refuse_purged(p_task text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_at timestamptz := (SELECT t.purged_at FROM agentos.task_heads t WHERE t.task_id = p_task);
BEGIN
    IF v_at IS NOT NULL THEN
        RAISE EXCEPTION 'the content of task % was purged at %', p_task, v_at USING ERRCODE = 'AG048',
            HINT = 'submit the work as a new task; what is left of this one: agentos show ' || p_task;
    END IF;
END $$;

-- The task with its child tasks, all of them ended, and no parent that might still ask for its result. One commit: who
-- dies before it has taken nothing away, after it all is gone but parts of large values that nobody refers to, which
-- `collect_blobs` deletes. Said again it takes away what has been written since. Returns how many tasks.
CREATE FUNCTION agentos.purge_task(p_task text, p_by text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_tasks text[]; v_open text;
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task);
    INSERT INTO agentos.task_heads (task_id) VALUES (p_task) ON CONFLICT DO NOTHING;
    PERFORM agentos.lock_family(agentos.descendants(p_task));
    v_tasks := agentos.descendants(p_task);
    SELECT format('%s is %s', t.task_id, t.status) INTO v_open FROM agentos.tasks t
     WHERE (t.task_id = ANY (v_tasks) OR t.task_id = (SELECT h.parent_task FROM agentos.task_heads h WHERE h.task_id = p_task))
       AND t.status NOT IN ('completed', 'failed', 'cancelled') ORDER BY t.task_id LIMIT 1;
    IF v_open IS NOT NULL THEN
        RAISE EXCEPTION 'task % cannot be purged: %', p_task, v_open USING ERRCODE = 'AG047',
            HINT = 'let it end, or cancel it first: agentos cancel TASK';
    END IF;
    PERFORM agentos.purge_work(v_tasks), agentos.purge_calls(v_tasks), agentos.purge_told(v_tasks);
    PERFORM agentos.drop_blobs(t) FROM unnest(v_tasks) t ORDER BY t;
    UPDATE agentos.task_heads t SET purged_at = agentos.clock(), reason = CASE WHEN t.reason IS NOT NULL THEN 'purged' END
     WHERE t.task_id = ANY (v_tasks);
    PERFORM agentos.note(t, NULL, 'purged', NULL, NULL, json_build_object('by', p_by)) FROM unnest(v_tasks) t;
    RETURN cardinality(v_tasks);
END $$;

-- Payloads, results, snapshots. The hash of a snapshot stays: it tells that the former content, shown by somebody, is it.
CREATE FUNCTION agentos.purge_work(p_tasks text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE agentos.task_records r SET title = coalesce(r.kind, 'purged'), payload = NULL WHERE r.task_id = ANY (p_tasks);
    UPDATE agentos.work_items w SET payload = 'null' WHERE w.task_id = ANY (p_tasks);
    UPDATE agentos.outcomes o
       SET result = NULL, error = CASE WHEN o.error IS NOT NULL THEN json_build_object('type', o.error -> 'type') END
      FROM agentos.work_items w WHERE w.task_id = ANY (p_tasks) AND o.item_id = w.item_id;
    UPDATE agentos.checkpoints c SET snapshot = 'null', evidence = '{"evidence_list": []}', workspace = '',
           superseded_at = coalesce(c.superseded_at, agentos.clock()), superseded_reason = 'purged'
     WHERE c.task_id = ANY (p_tasks)
$$;

-- What tools and people were asked and said. Of model calls the outputs go with their rows: the usage keeps the counts.
-- One that other tasks shared is made, and paid, again when the next of them asks.
CREATE FUNCTION agentos.purge_calls(p_tasks text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE agentos.tool_ledger l SET call_key = NULL, arguments = 'null', produces = '[]', result = NULL, error = NULL
     WHERE l.task_id = ANY (p_tasks);
    UPDATE agentos.doubts d SET message = '', shown = 'null' WHERE d.task_id = ANY (p_tasks);
    UPDATE agentos.approvals a SET question = '', shown = 'null', options = NULL, option = NULL WHERE a.task_id = ANY (p_tasks);
    UPDATE agentos.signals s SET payload = 'null' WHERE s.task_id = ANY (p_tasks);
    DELETE FROM agentos.llm_cache c WHERE c.task_id = ANY (p_tasks)
$$;

-- Events keep that they happened, when, and the fields that hold no content.
CREATE FUNCTION agentos.purge_told(p_tasks text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE agentos.events e SET data = (
        SELECT coalesce(json_object_agg(f.key, f.value), '{}') FROM json_each(e.data) f
         WHERE f.key IN ('sequence_number', 'status', 'crashes', 'claimed_at', 'next_try_at', 'type', 'holds', 'host', 'by', 'to'))
     WHERE e.task_id = ANY (p_tasks) AND json_typeof(e.data) = 'object'
$$;
