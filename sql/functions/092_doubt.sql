-- What only a person can tell: whether a call in doubt was done, and what a program that changed is to do.
-- held -> waiting -> ready | outcome. Each function is one commit: before it nothing was asked (answered), after it all was.

-- Asks, and with p_park gives the item's lease up until it is answered, in the same commit. p_doubt of a call is the
-- call_token that is in doubt; of a changed program it is made by the caller. False: the call was answered or finished
-- meanwhile, ask the ledger again. Who dies before the commit asks again from the next lease; after it the item is
-- parked, once. Raises LeaseLost, TaskCancelled.
CREATE FUNCTION agentos.ask_doubt(
    p_doubt uuid, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_sort text, p_key text, p_ordinal integer,
    p_message text, p_shown text, p_park boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_token IS NOT NULL THEN PERFORM agentos.fence_live(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(); END IF;
    PERFORM agentos.lock_head(p_task);  -- before the call and the question, as who answers does: neither misses the other
    IF p_sort = 'call' THEN
        PERFORM 1 FROM agentos.tool_ledger l
          WHERE l.ledger_key = p_key AND l.call_token = p_doubt AND l.state = 'begun' FOR NO KEY UPDATE;
        IF NOT FOUND THEN RETURN false; END IF;
    END IF;
    INSERT INTO agentos.doubts AS d (doubt_id, task_id, item_id, sort, ledger_key, ordinal, message, shown, asked_at)
    VALUES (p_doubt, p_task, p_item, p_sort, p_key, p_ordinal, p_message, p_shown::json, agentos.clock())
    ON CONFLICT (doubt_id) DO UPDATE SET message = p_message, asked_at = agentos.clock(), answer = NULL,
           answered_by = NULL, answered_at = NULL;
    IF p_park THEN
        PERFORM agentos.park(p_worker, p_item, p_token, 'doubt', NULL);
        PERFORM agentos.note(p_task, p_item, 'asked_about_doubt', NULL, p_worker,
                             json_build_object('doubt_id', p_doubt, 'message', p_message));
    END IF;
    RETURN true;
END $$;

-- The person's answer: done (with the result), not_done (it runs again under the same idempotency key), continue (of a
-- program: what it asks runs anew, the recorded calls stay), fail (the item fails). The last open question of a parked
-- item makes it ready. Returns what became of the item: ready, waiting, failed, or noted (it was not parked: retry).
CREATE FUNCTION agentos.resolve_doubt(p_task text, p_doubt uuid, p_answer text, p_result text, p_exit_code integer, p_by text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE v agentos.doubts;
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task), agentos.lock_head(p_task);
    SELECT * INTO v FROM agentos.doubts d WHERE d.task_id = p_task AND d.doubt_id = p_doubt FOR UPDATE;
    PERFORM agentos.refuse_answer(v, p_task, p_doubt, p_answer);
    UPDATE agentos.doubts SET answer = p_answer, answered_by = p_by, answered_at = agentos.clock() WHERE doubt_id = p_doubt;
    UPDATE agentos.tool_ledger l
       SET state = CASE p_answer WHEN 'done' THEN 'finished' ELSE 'failed' END, result = p_result::json,
           exit_code = p_exit_code, error = CASE p_answer WHEN 'not_done' THEN 'not done, says ' || p_by END,
           finished_at = agentos.clock()
     WHERE p_answer IN ('done', 'not_done') AND l.ledger_key = v.ledger_key AND l.call_token = p_doubt;
    UPDATE agentos.tool_ledger l SET position = NULL  -- nothing is held against the new program there any more
     WHERE p_answer = 'continue' AND l.item_id = v.item_id AND l.ordinal = v.ordinal;
    PERFORM agentos.note(p_task, v.item_id, 'doubt_resolved', NULL, NULL,
                         json_build_object('doubt_id', p_doubt, 'answer', p_answer, 'by', p_by));
    IF p_answer = 'fail' THEN
        PERFORM agentos.fail_parked(v, p_by);
        RETURN 'failed';
    ELSIF EXISTS (SELECT 1 FROM agentos.doubts d
                   WHERE d.task_id = p_task AND d.item_id = v.item_id AND d.answer IS NULL) THEN
        RETURN 'waiting';
    END IF;
    RETURN CASE WHEN cardinality(agentos.unpark(ARRAY[v.item_id], 'doubt')) > 0 THEN 'ready' ELSE 'noted' END;
END $$;

-- An answer counts for the question that was seen, once. The ledger's row is locked here, after the head and the question.
CREATE FUNCTION agentos.refuse_answer(v agentos.doubts, p_task text, p_doubt uuid, p_answer text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v_why text; v_fix text := 'see what is open now: agentos doubts ' || p_task; v_call agentos.tool_ledger;
BEGIN
    SELECT * INTO v_call FROM agentos.tool_ledger l WHERE l.ledger_key = v.ledger_key FOR UPDATE;
    IF v.doubt_id IS NULL THEN
        v_why := format('task %s has no doubt %s', p_task, p_doubt);
    ELSIF v.answer IS NOT NULL THEN
        v_why := format('doubt %s was answered before: %s by %s at %s', p_doubt, v.answer, v.answered_by, v.answered_at);
    ELSIF (p_answer = 'continue') <> (v.sort = 'program') AND p_answer <> 'fail' THEN
        v_why := format('doubt %s is about a %s, %s does not answer it', p_doubt, v.sort, p_answer);
        v_fix := CASE v.sort WHEN 'call' THEN '--done [RESULT], --not-done or --fail' ELSE '--continue, --fail, or agentos rewind' END;
    ELSIF v.sort = 'call' AND v_call.call_token IS DISTINCT FROM p_doubt THEN
        v_why := format('the call was executed again since doubt %s was asked, it is %s now', p_doubt, v_call.state);
    ELSIF v.sort = 'call' AND v_call.state <> 'begun' THEN
        v_why := format('the call of doubt %s is %s by now', p_doubt, v_call.state);
    ELSIF p_answer = 'fail' AND NOT EXISTS (
        SELECT 1 FROM agentos.waiting k WHERE k.item_id = v.item_id AND k.reason = 'doubt') THEN
        v_why := format('the item of doubt %s is not parked, there is nothing to fail', p_doubt);
        v_fix := 'answer --done, --not-done or --continue, then: agentos retry ' || p_task;
    ELSE RETURN;
    END IF;
    RAISE EXCEPTION '%', v_why USING ERRCODE = 'AG020', HINT = v_fix;
END $$;

-- waiting -> outcome. The caller has locked the head.
CREATE FUNCTION agentos.fail_parked(v agentos.doubts, p_by text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (DELETE FROM agentos.waiting k WHERE k.item_id = v.item_id AND k.reason = 'doubt' RETURNING *)
    INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at, error)
    SELECT g.item_id, g.attempt, g.failures, g.crashes, 'failed', agentos.clock(), json_build_object(
           'type', CASE v.sort WHEN 'call' THEN 'InDoubt' ELSE 'ProgramChanged' END,
           'message', v.message || '; failed by ' || p_by, 'fix', 'agentos retry ' || v.task_id || ' asks again')
      FROM gone g;
    PERFORM agentos.settle(ARRAY[v.item_id], false);
END $$;

-- Open questions, oldest first: those of parked items, and those that failed their item. p_task null: of the whole pool.
CREATE FUNCTION agentos.open_doubts(p_task text, p_limit integer)
RETURNS TABLE (doubt_id uuid, task_id text, item_id bigint, item_key text, sort text, message text, shown text,
               asked_at timestamptz, parked boolean, tool_name text, arguments text, idempotency_key text, executions integer,
               on_doubt text, begun_at timestamptz, worker_id bigint, host text) LANGUAGE sql AS $$
    SELECT d.doubt_id, d.task_id, d.item_id, w.key, d.sort, d.message, d.shown::text, d.asked_at,
           EXISTS (SELECT 1 FROM agentos.waiting k WHERE k.item_id = d.item_id AND k.reason = 'doubt'),
           l.tool_name, l.arguments::text, l.idempotency_key, l.executions, l.on_doubt, l.begun_at, l.worker_id, p.host
      FROM agentos.doubts d
      JOIN agentos.tool_ledger l USING (ledger_key)
      LEFT JOIN agentos.work_items w ON w.item_id = d.item_id
      LEFT JOIN agentos.workers p ON p.worker_id = l.worker_id
     WHERE d.answer IS NULL AND (p_task IS NULL OR d.task_id = p_task)
       AND (d.sort = 'program' OR l.call_token = d.doubt_id AND l.state = 'begun')
     ORDER BY d.asked_at LIMIT p_limit
$$;
