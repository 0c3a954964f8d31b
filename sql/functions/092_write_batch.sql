-- The durable writes of many items in one transaction: each under its own fence, one commit for all.
--
-- A call is a row of texts: the arguments of the function that does the same alone, in their places; 17th that function's
-- name, 18th which of the leases fences it. Only what is plain is written here. Whatever is not (a lease that is lost, a
-- task that is cancelled, a key that is there already) is left out, of the database and of the reply, and its caller asks
-- that function: it has the answer, or the error. A batch that fails as a whole (a step stored before, a value that is
-- refused, a deadlock) has written nothing, and each of its calls is then made alone. So nobody's neighbour makes a call
-- fail, and there is no subtransaction.
-- A model's output is not among them: what it costs to record is nothing beside what it took.
-- The process dies before the COMMIT: nothing is there, whoever resumes does it again. After it: all of it is there, and
-- step_id and call_token find it.

CREATE TYPE agentos.held_lease AS (item_id bigint, worker_id bigint, token uuid, task_id text, attempt integer);

CREATE TYPE agentos.written AS (n integer, sequence_number bigint, at timestamptz);

-- Lock order: leases by item (p_items comes in that order), heads by task, then the ledger by key (p_calls does).
-- p_tasks: of the checkpoints among the calls.
CREATE FUNCTION agentos.write_batch(p_items bigint[], p_workers bigint[], p_tokens uuid[], p_tasks text[], p_calls text[])
RETURNS SETOF agentos.written LANGUAGE plpgsql AS $$
DECLARE v_held agentos.held_lease[]; v_call text[]; h agentos.held_lease; r agentos.written; v_n integer := 0;
BEGIN
    PERFORM agentos.enter_fence();
    FOR i IN 1..cardinality(p_items) LOOP
        SELECT l.item_id, l.worker_id, l.token, w.task_id, l.attempt INTO h
          FROM agentos.lease_held l JOIN agentos.work_items w ON w.item_id = l.item_id
         WHERE l.item_id = p_items[i] AND l.worker_id = p_workers[i] AND l.token = p_tokens[i]
           AND (l.expires_at IS NULL OR l.expires_at > agentos.clock()) FOR NO KEY UPDATE OF l;
        v_held[i] := h;
    END LOOP;
    IF cardinality(p_tasks) > 1 THEN
        PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = ANY (p_tasks) ORDER BY t.task_id FOR NO KEY UPDATE;
    END IF;
    FOREACH v_call SLICE 1 IN ARRAY p_calls LOOP
        v_n := v_n + 1;
        h := v_held[v_call[18]::integer];
        CONTINUE WHEN h.item_id IS NULL;
        r := CASE v_call[17]
            WHEN 'commit_checkpoint' THEN agentos.put_checkpoint(v_call, h)
            WHEN 'ledger_begin' THEN agentos.put_begun(v_call, h)
            WHEN 'ledger_finish' THEN agentos.put_finished(v_call, h) END;
        CONTINUE WHEN r.at IS NULL;
        r.n := v_n;
        RETURN NEXT r;
    END LOOP;
END $$;

-- p: task, item, worker, token, type, snapshot, sha256, evidence, ordinal, host, workspace, step.
CREATE FUNCTION agentos.put_checkpoint(p text[], h agentos.held_lease) RETURNS agentos.written LANGUAGE plpgsql AS $$
DECLARE r agentos.written;
BEGIN
    IF h.task_id <> p[1] THEN RETURN NULL; END IF;
    UPDATE agentos.task_heads t SET last_seq = t.last_seq + 1 WHERE t.task_id = h.task_id AND NOT t.cancel_requested
    RETURNING t.last_seq INTO r.sequence_number;
    IF NOT FOUND THEN
        INSERT INTO agentos.task_heads AS t (task_id, last_seq) VALUES (h.task_id, 1) ON CONFLICT DO NOTHING
        RETURNING t.last_seq INTO r.sequence_number;
        IF NOT FOUND THEN RETURN NULL; END IF;
    END IF;
    INSERT INTO agentos.checkpoints AS c (task_id, sequence_number, item_id, ordinal, checkpoint_type, step_id, snapshot,
           snapshot_sha256, evidence, host, workspace, worker_id, attempt, created_at)
    VALUES (h.task_id, r.sequence_number, h.item_id, p[9]::integer, p[5], p[12]::uuid, p[6]::json, p[7], p[8]::json, p[10], p[11],
            h.worker_id, h.attempt, agentos.clock())
    RETURNING c.created_at INTO r.at;
    RETURN r;
END $$;

CREATE FUNCTION agentos.is_cancelled(p_task text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM agentos.task_heads t WHERE t.task_id = p_task AND t.cancel_requested);
END $$;

-- What is begun for the first time. p: key, task, item, worker, token, tool, call_key, ordinal, nth, arguments, on_doubt,
-- produces, expires_s, force, call_token, position.
CREATE FUNCTION agentos.put_begun(p text[], h agentos.held_lease) RETURNS agentos.written LANGUAGE plpgsql AS $$
DECLARE r agentos.written; v_at timestamptz := agentos.clock();
BEGIN
    IF agentos.is_cancelled(h.task_id) THEN RETURN NULL; END IF;
    INSERT INTO agentos.tool_ledger AS l (ledger_key, task_id, item_id, tool_name, call_key, ordinal, nth, position, arguments, state,
           on_doubt, idempotency_key, produces, worker_id, token, call_token, begun_at, expires_at)
    VALUES (p[1], p[2], h.item_id, p[6], p[7], p[8]::integer, p[9]::integer, p[16]::integer, p[10]::json, 'begun', p[11], p[1],
            p[12]::json, h.worker_id, h.token, p[15]::uuid, v_at, v_at + make_interval(secs => p[13]::float8))
    ON CONFLICT (ledger_key) DO NOTHING RETURNING l.begun_at INTO r.at;
    RETURN r;
END $$;

-- p: key, call_token, item, worker, token, result, exit_code, error. A cancelled task may still say what it did.
CREATE FUNCTION agentos.put_finished(p text[], h agentos.held_lease) RETURNS agentos.written LANGUAGE plpgsql AS $$
DECLARE r agentos.written;
BEGIN
    UPDATE agentos.tool_ledger l SET state = CASE WHEN p[8] IS NULL THEN 'finished' ELSE 'failed' END, result = p[6]::json,
           exit_code = p[7]::integer, error = p[8], finished_at = agentos.clock()
     WHERE l.ledger_key = p[1] AND l.call_token = p[2]::uuid AND l.state = 'begun' RETURNING l.finished_at INTO r.at;
    RETURN r;
END $$;
