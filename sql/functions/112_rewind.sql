-- Rewinding a task to one of its checkpoints, and what waits for somebody's decision because it failed.

-- The items that a rewind opens again, and how many checkpoints each keeps (its calls from there on come after). An item
-- that completed before the checkpoint stays completed. p_seq 0: everything from the beginning.
CREATE FUNCTION agentos.rewound_items(p_task text, p_seq bigint) RETURNS TABLE (item_id bigint, ordinal integer) LANGUAGE sql AS $$
    SELECT w.item_id, coalesce((SELECT max(c.ordinal) FROM agentos.checkpoints c WHERE c.item_id = w.item_id
                                   AND c.sequence_number <= p_seq AND c.superseded_at IS NULL), 0)
      FROM agentos.work_items w
      LEFT JOIN agentos.outcomes o ON o.item_id = w.item_id
      LEFT JOIN agentos.checkpoints s ON s.task_id = p_task AND s.sequence_number = p_seq
     WHERE w.task_id = p_task
       AND (o.status IS DISTINCT FROM 'completed' OR o.finished_at >= coalesce(s.created_at, '-infinity') OR s.item_id = w.item_id
            OR EXISTS (SELECT 1 FROM agentos.checkpoints c WHERE c.item_id = w.item_id AND c.sequence_number > p_seq))
$$;

-- The recorded calls that came after a checkpoint: by the place in their item's program, else by time.
CREATE FUNCTION agentos.calls_after(p_task text, p_seq bigint) RETURNS SETOF agentos.tool_ledger LANGUAGE sql AS $$
    SELECT l.* FROM agentos.tool_ledger l
      LEFT JOIN agentos.rewound_items(p_task, p_seq) r ON r.item_id = l.item_id
      LEFT JOIN agentos.checkpoints s ON s.task_id = p_task AND s.sequence_number = p_seq
     WHERE l.task_id = p_task AND (l.item_id IS NULL OR r.item_id IS NOT NULL)
       AND CASE WHEN l.item_id IS NULL OR l.ordinal IS NULL THEN l.begun_at >= coalesce(s.created_at, '-infinity')
                ELSE l.ordinal >= r.ordinal END
$$;

-- What a rewind would find: the calls that came after, in the order in which they were begun. Writes nothing.
CREATE FUNCTION agentos.rewind_calls(p_task text, p_seq bigint)
RETURNS TABLE (idempotency_key text, item_id bigint, item_key text, tool_name text, arguments text, state text, on_doubt text,
               executions integer, begun_at timestamptz, finished_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_checkpoint(p_task, p_seq);
    RETURN QUERY SELECT l.idempotency_key, l.item_id, w.key, l.tool_name, l.arguments::text, l.state, l.on_doubt,
                        l.executions, l.begun_at, l.finished_at
      FROM agentos.calls_after(p_task, p_seq) l LEFT JOIN agentos.work_items w ON w.item_id = l.item_id
     ORDER BY l.begun_at, l.ledger_key;
END $$;

-- The rest of it: the items that would be open again and the checkpoints that would be superseded. Writes nothing.
CREATE FUNCTION agentos.rewind_scope(p_task text, p_seq bigint) RETURNS TABLE (items bigint[], checkpoints bigint[]) LANGUAGE sql AS $$
    SELECT ARRAY(SELECT r.item_id FROM agentos.rewound_items(p_task, p_seq) r ORDER BY 1),
           ARRAY(SELECT c.sequence_number FROM agentos.checkpoints c
                  WHERE c.task_id = p_task AND c.sequence_number > p_seq AND c.superseded_at IS NULL ORDER BY 1)
$$;

CREATE FUNCTION agentos.require_checkpoint(p_task text, p_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_reason text;
BEGIN
    PERFORM agentos.require_task(p_task), agentos.refuse_purged(p_task), agentos.refuse_retired(p_task);
    IF p_seq = 0 THEN RETURN; END IF;
    SELECT coalesce(c.superseded_reason, '') INTO v_reason FROM agentos.checkpoints c
     WHERE c.task_id = p_task AND c.sequence_number = p_seq AND c.superseded_at IS NOT NULL;
    IF FOUND THEN
        RAISE EXCEPTION 'checkpoint % of task % is superseded: %', p_seq, p_task, v_reason USING ERRCODE = 'AG008',
            HINT = 'choose one that is not (agentos show ' || p_task || '), or 0 for the beginning';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM agentos.checkpoints c WHERE c.task_id = p_task AND c.sequence_number = p_seq) THEN
        RAISE EXCEPTION 'task % has no checkpoint %', p_task, p_seq USING ERRCODE = 'AG008',
            HINT = 'see which it has: agentos show ' || p_task || '; 0 is the beginning';
    END IF;
END $$;

-- Locks every open item of a task where it is, so that none can be claimed until the transaction ends; refused while one
-- is held, or comes to be while we look. The caller has locked the head, without which no outcome goes.
CREATE FUNCTION agentos.hold_still(p_task text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_found integer; v_still integer := 0;
BEGIN
    PERFORM agentos.refuse_held(p_task, NULL);
    PERFORM 1 FROM agentos.waiting k WHERE k.task_id = p_task ORDER BY k.item_id FOR UPDATE;
    GET DIAGNOSTICS v_found = ROW_COUNT; v_still := v_still + v_found;
    PERFORM 1 FROM agentos.scheduled s WHERE s.item_id IN (
        SELECT w.item_id FROM agentos.work_items w WHERE w.task_id = p_task) ORDER BY s.item_id FOR UPDATE;
    GET DIAGNOSTICS v_found = ROW_COUNT; v_still := v_still + v_found;
    PERFORM 1 FROM agentos.work_items w JOIN agentos.lease_ready r
                ON r.item_id = w.item_id AND r.lane IN (w.lane, -w.lane) AND r.rank = w.rank
      WHERE w.task_id = p_task ORDER BY w.item_id FOR UPDATE OF r;
    GET DIAGNOSTICS v_found = ROW_COUNT; v_still := v_still + v_found;
    IF v_still < agentos.count_open(p_task) THEN
        RAISE EXCEPTION 'an item of task % is held', p_task USING ERRCODE = 'AG002',
            HINT = 'cancel it first (agentos cancel ' || p_task || '), or wait until its lease has ended';
    END IF;
END $$;

-- anywhere but held -> ready (or waiting for what it depends on). What came after the checkpoint is behind the task: later
-- checkpoints are superseded, items that completed later or not at all are open again, and of each recorded call p_choices
-- ({tool: {"action": "re_execute"} or {"action": "stub", "result", "exit_code"}}) says what becomes of it; without a word
-- it is kept, and replays. One commit: who dies before it has changed nothing, after it all is done, and a worker may
-- have begun. Said again it opens nothing that is not open. Returns the items. Raises TaskHeld, UnknownCheckpoint.
CREATE FUNCTION agentos.rewind_task(p_task text, p_seq bigint, p_choices text, p_by text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v_items bigint[]; v_reason text := format('rewound to checkpoint %s by %s', p_seq, p_by);
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_checkpoint(p_task, p_seq), agentos.lock_head(p_task);
    PERFORM 1 FROM agentos.task_records r WHERE r.task_id = p_task FOR SHARE;  -- a task without a head is retired here
    PERFORM agentos.hold_still(p_task), agentos.require_checkpoint(p_task, p_seq);
    v_items := ARRAY(SELECT r.item_id FROM agentos.rewound_items(p_task, p_seq) r ORDER BY 1);
    PERFORM agentos.rewind_ledger(p_task, v_items,
        ARRAY(SELECT l.ledger_key FROM agentos.calls_after(p_task, p_seq) l ORDER BY 1), p_choices::json, v_reason, p_by);
    UPDATE agentos.checkpoints c SET superseded_at = agentos.clock(), superseded_reason = v_reason
     WHERE c.task_id = p_task AND c.sequence_number > p_seq AND c.superseded_at IS NULL;
    PERFORM agentos.forget_refusals(v_items), agentos.retry_children(p_task, v_items);
    PERFORM agentos.keep_wall(p_task, v_items), agentos.take_out(p_task, v_items, v_reason);
    PERFORM agentos.reopen(p_task, v_items);
    UPDATE agentos.task_heads t SET status = NULL, reason = NULL, finished_at = NULL, cancel_requested = false, expired = false,
           failed_items = 0,
           open_items = CASE WHEN t.open_items IS NULL THEN NULL ELSE agentos.count_open(p_task) END WHERE t.task_id = p_task;
    IF EXISTS (SELECT 1 FROM agentos.work_items w WHERE w.task_id = p_task) THEN
        PERFORM agentos.finish_tasks(ARRAY[p_task]);  -- all completed before the checkpoint: nobody else would end it
    END IF;
    PERFORM agentos.note(p_task, NULL, 'rewound', NULL, NULL,
                         json_build_object('to', p_seq, 'by', p_by, 'items', v_items, 'choices', p_choices::json));
    RETURN v_items;
END $$;

-- Items leave the place where they are; the events keep how each had ended, and its attempt, which goes on counting.
CREATE FUNCTION agentos.take_out(p_task text, p_items bigint[], p_reason text) RETURNS void LANGUAGE sql AS $$
    WITH ended AS (
        DELETE FROM agentos.outcomes o WHERE o.item_id = ANY (p_items) RETURNING o.item_id, o.attempt, o.status AS was, o.error),
    parked AS (
        DELETE FROM agentos.waiting k WHERE k.item_id = ANY (p_items) RETURNING k.item_id, k.attempt, 'waiting' AS was, NULL::json AS error),
    late AS (
        DELETE FROM agentos.scheduled s WHERE s.item_id = ANY (p_items) RETURNING s.item_id, s.attempt, 'scheduled' AS was, NULL::json AS error),
    free AS (
        DELETE FROM agentos.lease_ready r USING agentos.work_items w
         WHERE w.item_id = ANY (p_items) AND r.item_id = w.item_id AND r.lane IN (w.lane, -w.lane) AND r.rank = w.rank
        RETURNING r.item_id, r.attempt, 'ready' AS was, NULL::json AS error)
    INSERT INTO agentos.events (task_id, item_id, at, event, attempt, data)
    SELECT p_task, e.item_id, agentos.clock(), 'reopened', e.attempt,
           json_build_object('status', e.was, 'error', e.error, 'reason', p_reason)
      FROM (SELECT * FROM ended UNION ALL SELECT * FROM parked UNION ALL SELECT * FROM late UNION ALL SELECT * FROM free) e
$$;

-- What becomes of the calls p_keys. A call that is executed again gets a new idempotency key, or whoever dedupes would
-- refuse it; the events keep what was recorded. No position: the person chose, nothing is held against a changed program.
CREATE FUNCTION agentos.rewind_ledger(p_task text, p_items bigint[], p_keys text[], p_choices json, p_reason text, p_by text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_at timestamptz := agentos.clock();
BEGIN
    UPDATE agentos.doubts d SET answer = 'rewound', answered_by = p_by, answered_at = v_at
     WHERE d.task_id = p_task AND d.answer IS NULL AND (d.item_id = ANY (p_items) OR d.ledger_key = ANY (p_keys));
    PERFORM agentos.forget_waits(p_items, p_keys, p_choices);
    PERFORM 1 FROM agentos.tool_ledger l WHERE l.ledger_key = ANY (p_keys) ORDER BY l.ledger_key FOR UPDATE;
    INSERT INTO agentos.events (task_id, item_id, at, event, data)
    SELECT p_task, l.item_id, v_at, 'call_set_aside', json_build_object('tool', l.tool_name, 'idempotency_key', l.idempotency_key,
           'action', p_choices -> l.tool_name ->> 'action', 'state', l.state, 'arguments', left(l.arguments::text, 2000),
           'result', left(l.result::text, 2000), 'finished_at', l.finished_at)
      FROM agentos.tool_ledger l WHERE l.ledger_key = ANY (p_keys) AND p_choices -> l.tool_name IS NOT NULL;
    UPDATE agentos.tool_ledger l SET position = NULL WHERE l.ledger_key = ANY (p_keys);
    UPDATE agentos.tool_ledger l
       SET state = 'failed', error = p_reason, result = NULL, exit_code = NULL, finished_at = v_at, call_token = gen_random_uuid(),
           idempotency_key = encode(sha256(convert_to(l.idempotency_key || ':' || l.call_token, 'UTF8')), 'hex')
     WHERE l.ledger_key = ANY (p_keys) AND p_choices -> l.tool_name ->> 'action' = 're_execute';
    UPDATE agentos.tool_ledger l
       SET state = 'finished', error = NULL, result = p_choices -> l.tool_name -> 'result', produces = '[]', finished_at = v_at,
           exit_code = (p_choices -> l.tool_name ->> 'exit_code')::integer, call_token = gen_random_uuid()
     WHERE l.ledger_key = ANY (p_keys) AND p_choices -> l.tool_name ->> 'action' = 'stub';
END $$;

-- Waits that are not over begin anew when the program comes to them again; so do those that p_choices executes again.
CREATE FUNCTION agentos.forget_waits(p_items bigint[], p_keys text[], p_choices json) RETURNS void LANGUAGE sql AS $$
    DELETE FROM agentos.waits w WHERE w.item_id = ANY (p_items);
    WITH gone AS (
        DELETE FROM agentos.tool_ledger l
         WHERE l.tool_name LIKE '@%' AND (l.item_id = ANY (p_items) AND l.state = 'begun' OR l.ledger_key = ANY (p_keys)
               AND p_choices -> l.tool_name ->> 'action' = 're_execute') RETURNING l.ledger_key)
    DELETE FROM agentos.approvals a USING gone g WHERE a.ledger_key = g.ledger_key
$$;

-- Tasks that failed, newest first, and what a retry would find: the items it opens, how many of them were quarantined, the
-- newest checkpoint, recorded calls that replay, calls in doubt, and questions that are still open.
CREATE FUNCTION agentos.dead_tasks(p_limit integer)
RETURNS TABLE (task_id text, kind text, title text, reason text, finished_at timestamptz, items integer, quarantined integer,
               checkpoint bigint, replays integer, in_doubt integer, questions integer) LANGUAGE sql AS $$
    SELECT t.task_id, t.kind, t.title, t.reason, t.finished_at, i.items, i.quarantined,
           (SELECT max(c.sequence_number) FROM agentos.checkpoints c WHERE c.task_id = t.task_id AND c.superseded_at IS NULL),
           l.replays, l.in_doubt, (SELECT count(*)::integer FROM agentos.open_doubts(t.task_id, 1000))
      FROM (SELECT * FROM agentos.tasks t WHERE t.status = 'failed' ORDER BY t.finished_at DESC NULLS LAST LIMIT p_limit) t
     CROSS JOIN LATERAL (
        SELECT count(*)::integer AS items, count(*) FILTER (WHERE o.status = 'quarantined')::integer AS quarantined
          FROM agentos.work_items w JOIN agentos.outcomes o USING (item_id)
         WHERE w.task_id = t.task_id AND o.status <> 'completed') i
     CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE r.state = 'finished')::integer AS replays,
               count(*) FILTER (WHERE r.state = 'begun' AND r.tool_name NOT LIKE '@%')::integer AS in_doubt
          FROM agentos.tool_ledger r JOIN agentos.outcomes o ON o.item_id = r.item_id AND o.status <> 'completed'
         WHERE r.task_id = t.task_id) l
     ORDER BY t.finished_at DESC NULLS LAST
$$;
