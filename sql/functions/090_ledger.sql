-- A tool call: nothing -> begun -> finished | failed; begun -> begun again when its doubt is resolved.

CREATE TYPE agentos.ledger_row AS (
    verdict text, call_token uuid, idempotency_key text, on_doubt text, result text, produces text, exit_code integer,
    error text, begun_at timestamptz, finished_at timestamptz, executions integer
);

-- Asks for the right to execute. Verdicts:
--   execute   begun now, for the caller: run the tool, then ledger_finish with the call_token
--   finished  recorded: replay the result
--   running   begun by somebody alive who is still at it: ask again later
--   doubt     begun by somebody who is gone: `on_doubt` decides, then ledger_resume
-- p_force begins again whatever is recorded. A record expires for callers without a lease only: an item that resumes
-- must find what it did, however long ago. p_call is the call_token to begin under: who asks again with the same one,
-- because a reply was lost, gets the same answer.
CREATE FUNCTION agentos.ledger_begin(
    p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_tool text, p_call_key text, p_ordinal integer,
    p_nth integer, p_arguments text, p_on_doubt text, p_produces text, p_expires_s float8, p_force boolean,
    p_call uuid DEFAULT gen_random_uuid(), p_position integer DEFAULT NULL)
RETURNS agentos.ledger_row LANGUAGE plpgsql AS $$
DECLARE v agentos.tool_ledger; v_verdict text; v_held text; v_now timestamptz;
BEGIN
    IF p_token IS NOT NULL THEN v_held := agentos.fence_live(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(), agentos.require_task(p_task); END IF;
    v_now := agentos.clock();
    INSERT INTO agentos.tool_ledger AS l (ledger_key, task_id, item_id, tool_name, call_key, ordinal, nth, position, arguments,
        state, on_doubt, idempotency_key, produces, worker_id, token, call_token, begun_at, expires_at)
    VALUES (p_key, p_task, p_item, p_tool, p_call_key, p_ordinal, p_nth, p_position, p_arguments::json, 'begun', p_on_doubt, p_key,
            p_produces::json, p_worker, p_token, p_call, v_now, v_now + make_interval(secs => p_expires_s))
    ON CONFLICT (ledger_key) DO NOTHING;
    IF FOUND THEN  -- as ledger_reply of the row, which need not be read back
        RETURN ('execute', p_call, p_key, p_on_doubt, NULL, p_produces, NULL, NULL, v_now, NULL, 1)::agentos.ledger_row;
    END IF;
    SELECT * INTO v FROM agentos.tool_ledger l WHERE l.ledger_key = p_key FOR UPDATE;
    IF v.state = 'begun' AND v.call_token = p_call THEN RETURN agentos.ledger_reply(v, 'execute'); END IF;
    v_verdict := CASE
        WHEN p_force OR v.state = 'failed' THEN 'execute'
        WHEN v.state = 'finished' AND p_token IS NULL AND v.expires_at <= agentos.clock() THEN 'execute'
        WHEN v.state = 'finished' THEN 'finished'
        WHEN agentos.is_at_it(v.worker_id, v.item_id, v.token) THEN 'running'
        ELSE 'doubt' END;
    IF v_verdict = 'execute' THEN
        RETURN agentos.ledger_restart(p_key, p_item, p_worker, p_token, p_arguments, p_produces, p_expires_s, p_call);
    END IF;
    IF v_verdict = 'finished' THEN UPDATE agentos.tool_ledger SET replays = replays + 1 WHERE ledger_key = p_key; END IF;
    RETURN agentos.ledger_reply(v, v_verdict);
END $$;

CREATE FUNCTION agentos.ledger_reply(v agentos.tool_ledger, p_verdict text) RETURNS agentos.ledger_row LANGUAGE sql AS $$
    SELECT (p_verdict, v.call_token, v.idempotency_key, v.on_doubt, v.result::text, v.produces::text, v.exit_code, v.error,
            v.begun_at, v.finished_at, v.executions)::agentos.ledger_row
$$;

CREATE FUNCTION agentos.is_alive(p_worker bigint) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM agentos.workers w WHERE w.worker_id = p_worker AND w.state IN ('alive', 'draining')
                      AND w.expires_at > agentos.clock())
$$;

-- Whether whoever began something still does it: its process lives, and holds the lease under which it began, if any.
CREATE FUNCTION agentos.is_at_it(p_worker bigint, p_item bigint, p_token uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT agentos.is_alive(p_worker) AND (p_token IS NULL OR EXISTS (
        SELECT 1 FROM agentos.lease_held h WHERE h.item_id = p_item AND h.token = p_token
           AND (h.expires_at IS NULL OR h.expires_at > agentos.clock())))
$$;

CREATE FUNCTION agentos.ledger_restart(p_key text, p_item bigint, p_worker bigint, p_token uuid, p_arguments text,
                                       p_produces text, p_expires_s float8, p_call uuid)
RETURNS agentos.ledger_row LANGUAGE plpgsql AS $$
DECLARE v agentos.tool_ledger;
BEGIN
    UPDATE agentos.tool_ledger SET state = 'begun', item_id = coalesce(p_item, item_id), worker_id = p_worker,
           token = p_token, call_token = p_call, arguments = p_arguments::json, produces = p_produces::json, begun_at = agentos.clock(), finished_at = NULL,
           result = NULL, exit_code = NULL, error = NULL, executions = executions + 1,
           expires_at = agentos.clock() + make_interval(secs => p_expires_s)
     WHERE ledger_key = p_key RETURNING * INTO v;
    RETURN agentos.ledger_reply(v, 'execute');
END $$;

-- A doubt was resolved as "not done" (retry, probe), or a finished call must run again because the world lost what it
-- produced (p_repair). Only one of several who ask gets it: p_call is the call_token that was seen. And only from the
-- state that was seen: a call in doubt whose process came back and finished it is not done again. p_next is the
-- call_token to begin under; as in ledger_begin, who asks again with the same one gets the same answer.
CREATE FUNCTION agentos.ledger_resume(p_key text, p_call uuid, p_item bigint, p_worker bigint, p_token uuid, p_repair boolean,
                                      p_expires_s float8, p_next uuid DEFAULT gen_random_uuid())
RETURNS agentos.ledger_row LANGUAGE plpgsql AS $$
DECLARE v agentos.tool_ledger;
BEGIN
    IF p_token IS NOT NULL THEN PERFORM agentos.fence_live(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(); END IF;
    UPDATE agentos.tool_ledger SET repairs = repairs + p_repair::integer
     WHERE ledger_key = p_key AND call_token = p_call AND state = CASE WHEN p_repair THEN 'finished' ELSE 'begun' END
    RETURNING * INTO v;
    IF v.ledger_key IS NULL THEN
        SELECT * INTO v FROM agentos.tool_ledger WHERE ledger_key = p_key AND call_token = p_next AND state = 'begun';
        RETURN agentos.ledger_reply(v, CASE WHEN FOUND THEN 'execute' ELSE 'running' END);
    END IF;
    RETURN agentos.ledger_restart(p_key, p_item, p_worker, p_token, v.arguments::text, v.produces::text, p_expires_s,
                                  p_next);
END $$;

-- The tool returned (p_error null) or raised. Only who began it may say so, and under a lease only while it is held.
CREATE FUNCTION agentos.ledger_finish(p_key text, p_call uuid, p_item bigint, p_worker bigint, p_token uuid, p_result text,
                                      p_exit_code integer, p_error text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_held text; v_ok boolean;
BEGIN
    IF p_token IS NOT NULL THEN v_held := agentos.fence(p_item, p_worker, p_token);
    ELSE v_ok := agentos.enter_fence(); END IF;
    UPDATE agentos.tool_ledger SET state = CASE WHEN p_error IS NULL THEN 'finished' ELSE 'failed' END,
           result = p_result::json, exit_code = p_exit_code, error = p_error, finished_at = agentos.clock()
     WHERE ledger_key = p_key AND call_token = p_call AND state = 'begun';
    IF FOUND THEN RETURN true; END IF;
    IF EXISTS (SELECT 1 FROM agentos.tool_ledger WHERE ledger_key = p_key AND call_token = p_call) THEN RETURN false; END IF;
    RAISE EXCEPTION 'the call was taken over by another execution' USING ERRCODE = 'AG001',
        HINT = 'drop this result; the record belongs to whoever began it last';
END $$;

-- The ordinal at which this item last recorded such an unkeyed call before the checkpoint it resumed from, unless the
-- very call is recorded, or such a call was made since. A handler that ignored its snapshot is told by this.
CREATE FUNCTION agentos.ledger_before(p_item bigint, p_tool text, p_arguments text, p_resumed integer, p_key text)
RETURNS integer LANGUAGE sql AS $$
    SELECT max(l.ordinal) FROM agentos.tool_ledger l
     WHERE l.item_id = p_item AND l.tool_name = p_tool AND l.call_key IS NULL AND l.arguments::text = p_arguments
    HAVING max(l.ordinal) < p_resumed AND NOT bool_or(l.ledger_key = p_key)
$$;

-- What an item recorded from this checkpoint on without a key, for whoever resumes: does the program still make these calls,
-- and does it come to the waits that are over?
CREATE FUNCTION agentos.ledger_recorded(p_item bigint, p_ordinal integer)
RETURNS TABLE (key text, ordinal integer, "position" integer, tool_name text, arguments text, state text) LANGUAGE sql AS $$
    SELECT l.ledger_key, l.ordinal, l.position, l.tool_name, left(l.arguments::text, 400), l.state FROM agentos.tool_ledger l
     WHERE l.item_id = p_item AND l.ordinal >= p_ordinal AND l.call_key IS NULL
       AND (l.tool_name NOT LIKE '@%' OR l.state = 'finished' AND l.tool_name <> '@spawn')
$$;

CREATE FUNCTION agentos.ledger_history(p_task text, p_limit integer)
RETURNS TABLE (tool_name text, arguments text, state text, result text, exit_code integer, error text, executions integer,
               replays integer, repairs integer, item_id bigint, call_key text, begun_at timestamptz, finished_at timestamptz,
               in_doubt boolean) LANGUAGE sql AS $$
    SELECT l.tool_name, l.arguments::text, l.state, l.result::text, l.exit_code, l.error, l.executions, l.replays, l.repairs,
           l.item_id, l.call_key, l.begun_at, l.finished_at,
           l.state = 'begun' AND l.tool_name NOT LIKE '@%' AND NOT agentos.is_at_it(l.worker_id, l.item_id, l.token)
      FROM agentos.tool_ledger l WHERE l.task_id = p_task ORDER BY l.begun_at DESC LIMIT p_limit
$$;
