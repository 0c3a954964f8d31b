-- The durable writes of many items in one transaction: each under its own fence, one commit for all.
--
-- The first three arrays are the fences of the calls: of all checkpoints, then of what is begun, then of what is finished.
-- The other arguments come column by column, an array for each argument of a sort of calls (c_, b_, f_), named as in the
-- function that does the same alone. Replies name calls by their places among all.
-- Only what is plain is written here, with one statement for all calls of a sort: row by row, starting and ending statements
-- was most of what a call cost. Whatever is not plain (a lease that is lost, a task that is cancelled, a key that is there
-- already) is left out, of the database and of the reply, and its caller asks the function that does it alone: that has the
-- answer, or the error. A batch that fails as a whole (a step stored before, a value that is refused, a deadlock) has written
-- nothing, and each of its calls is then made alone. So nobody's neighbour makes a call fail, and there is no subtransaction.
-- A model's output is not among them: what it costs to record is nothing beside what it took.
-- The process dies before the COMMIT: nothing is there, whoever resumes does it again. After it: all of it is there, and
-- step_id and call_token find it.

-- Of one sort of calls: the places of those that were written, beside them the numbers of checkpoints, and when.
CREATE TYPE agentos.written AS (places integer[], sequence_numbers bigint[], at timestamptz);

-- Lock order: leases by item, as their index has them (found as `end_leases` finds them), heads by task, as theirs has them,
-- then the ledger by key. The planner settings leave nothing else. `= ANY`: by key also when the statistics say that there is
-- one row. What is written is read in later statements than the locks.
-- A call goes with the lease of its own token: an attempt that was told to end and goes on, and the one after it, may both be
-- in one batch. Nearly always there is one call of each lease, in its order: then nothing has to be matched.
CREATE FUNCTION agentos.write_batch(
    p_items bigint[], p_workers bigint[], p_tokens uuid[],
    c_task text[], c_type text[], c_snapshot text[], c_sha256 text[], c_evidence text[], c_ordinal integer[], c_host text[],
    c_workspace text[], c_step uuid[],
    b_key text[], b_task text[], b_tool text[], b_call_key text[], b_ordinal integer[], b_nth integer[], b_arguments text[],
    b_on_doubt text[], b_produces text[], b_expires_s float8[], b_call uuid[], b_position integer[],
    f_key text[], f_call uuid[], f_result text[], f_exit_code integer[], f_error text[])
RETURNS SETOF agentos.written LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE v_ok boolean := agentos.enter_fence(); v_now timestamptz := agentos.clock(); v_held uuid[]; v_items bigint[];
        v_workers bigint[]; v_tasks text[]; v_attempts integer[];
BEGIN
    SELECT array_agg(h.token), array_agg(h.item_id), array_agg(h.worker_id), array_agg(h.task_id), array_agg(h.attempt)
      INTO v_held, v_items, v_workers, v_tasks, v_attempts FROM (
        SELECT l.token, l.item_id, l.worker_id, w.task_id, l.attempt
          FROM agentos.lease_held l JOIN agentos.work_items w ON w.item_id = l.item_id
         WHERE l.item_id = ANY (p_items) AND w.item_id = ANY (p_items) AND l.item_id = p_items[array_position(p_tokens, l.token)]
           AND l.worker_id + 0 = p_workers[array_position(p_tokens, l.token)] AND (l.expires_at IS NULL OR l.expires_at > v_now)
           FOR NO KEY UPDATE OF l) h;
    IF NOT coalesce(p_tokens = v_held AND p_items = v_items AND p_workers = v_workers, false) THEN
        SELECT array_agg(v_tasks[c.h] ORDER BY c.i), array_agg(v_attempts[c.h] ORDER BY c.i) INTO v_tasks, v_attempts
          FROM agentos.held_calls(p_items, p_workers, p_tokens, v_items, v_workers, v_held) WITH ORDINALITY AS c(h, i);
    END IF;  -- of each call, now; null: it has no lease
    IF cardinality(c_task) > 0 THEN
        RETURN NEXT agentos.put_checkpoints(p_items, p_workers, v_tasks, v_attempts, c_task, c_type, c_snapshot, c_sha256, c_evidence,
                                            c_ordinal, c_host, c_workspace, c_step);
    END IF;
    IF cardinality(b_task) > 0 THEN
        RETURN NEXT agentos.put_begun(coalesce(cardinality(c_task), 0), p_items, p_workers, p_tokens, v_tasks, b_key, b_task, b_tool,
            b_call_key, b_ordinal, b_nth, b_arguments, b_on_doubt, b_produces, b_expires_s, b_call, b_position);
    END IF;
    IF cardinality(f_key) > 0 THEN
        RETURN NEXT agentos.put_finished(coalesce(cardinality(c_task), 0) + coalesce(cardinality(b_task), 0), v_tasks, f_key, f_call,
                                         f_result, f_exit_code, f_error);
    END IF;
END $$;

-- For each call the place of its lease among those that are held; null: it is not.
CREATE FUNCTION agentos.held_calls(p_items bigint[], p_workers bigint[], p_tokens uuid[], p_held_items bigint[],
                                   p_held_workers bigint[], p_held uuid[]) RETURNS SETOF integer LANGUAGE sql AS $$
    SELECT CASE WHEN p_held_items[f.h] = p_items[f.i] AND p_held_workers[f.h] = p_workers[f.i] THEN f.h END
      FROM (SELECT i, array_position(p_held, p_tokens[i]) AS h FROM generate_series(1, cardinality(p_tokens)) i) f ORDER BY f.i
$$;

-- The task that each call names, if it is that of its lease; null for the others. The calls begin after p_from others.
CREATE FUNCTION agentos.held_tasks(p_from integer, p_tasks text[], p_task text[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    IF p_task = p_tasks[p_from + 1:p_from + cardinality(p_task)] THEN RETURN p_task; END IF;
    RETURN ARRAY(SELECT CASE WHEN p_tasks[p_from + i] = p_task[i] THEN p_task[i] END
                   FROM generate_series(1, cardinality(p_task)) i ORDER BY i);
END $$;

-- Several of one task are numbered in their order. A task of one item gets its head here.
CREATE FUNCTION agentos.put_checkpoints(
    p_items bigint[], p_workers bigint[], p_tasks text[], p_attempts integer[], p_task text[], p_type text[], p_snapshot text[],
    p_sha256 text[], p_evidence text[], p_ordinal integer[], p_host text[], p_workspace text[], p_step uuid[])
RETURNS agentos.written LANGUAGE plpgsql AS $$
DECLARE v_task text[] := agentos.held_tasks(0, p_tasks, p_task); v_heads text[]; v_last bigint[]; v_now timestamptz;
        v_written agentos.written;
BEGIN
    WITH t AS (
        UPDATE agentos.task_heads t SET last_seq = t.last_seq + cardinality(array_positions(v_task, t.task_id))
         WHERE t.task_id = ANY (v_task) AND NOT t.cancel_requested RETURNING t.task_id, t.last_seq)
    SELECT array_agg(t.task_id), array_agg(t.last_seq) INTO v_heads, v_last FROM t;
    IF NOT coalesce(v_task <@ v_heads, false) THEN  -- some have no head, or are left out
        WITH t AS (
            INSERT INTO agentos.task_heads AS t (task_id, last_seq)
            SELECT u, count(*) FROM unnest(v_task) u
             WHERE u IS NOT NULL AND u <> ALL (coalesce(v_heads, '{}')) GROUP BY u ORDER BY u
            ON CONFLICT DO NOTHING RETURNING t.task_id, t.last_seq)
        SELECT v_heads || array_agg(t.task_id), v_last || array_agg(t.last_seq) INTO v_heads, v_last FROM t;
    END IF;
    v_now := agentos.clock();
    WITH s AS (
        INSERT INTO agentos.checkpoints AS s (task_id, sequence_number, item_id, ordinal, checkpoint_type, step_id, snapshot,
               snapshot_sha256, evidence, host, workspace, worker_id, attempt, created_at)
        SELECT v_task[i], v_last[array_position(v_heads, v_task[i])] - cardinality(array_positions(v_task[i + 1:], v_task[i])),
               p_items[i], p_ordinal[i], p_type[i], p_step[i], p_snapshot[i]::json, p_sha256[i], p_evidence[i]::json, p_host[i],
               p_workspace[i], p_workers[i], p_attempts[i], v_now
          FROM generate_series(1, cardinality(p_task)) i WHERE v_task[i] = ANY (v_heads)
        RETURNING array_position(p_step, s.step_id) AS place, s.sequence_number)
    SELECT array_agg(s.place), array_agg(s.sequence_number), v_now INTO v_written FROM s;
    RETURN v_written;
END $$;

-- What is begun for the first time.
CREATE FUNCTION agentos.put_begun(
    p_from integer, p_items bigint[], p_workers bigint[], p_tokens uuid[], p_tasks text[], p_key text[], p_task text[],
    p_tool text[], p_call_key text[], p_ordinal integer[], p_nth integer[], p_arguments text[], p_on_doubt text[], p_produces text[],
    p_expires_s float8[], p_call uuid[], p_position integer[]) RETURNS agentos.written LANGUAGE plpgsql AS $$
DECLARE v_task text[] := agentos.held_tasks(p_from, p_tasks, p_task); v_now timestamptz := agentos.clock(); v_ended text[];
        v_written agentos.written;
BEGIN
    v_ended := ARRAY(SELECT t.task_id FROM agentos.task_heads t WHERE t.task_id = ANY (v_task) AND t.cancel_requested);
    WITH b AS (
        INSERT INTO agentos.tool_ledger AS l (ledger_key, task_id, item_id, tool_name, call_key, ordinal, nth, position, arguments,
               state, on_doubt, idempotency_key, produces, worker_id, token, call_token, begun_at, expires_at)
        SELECT p_key[i], v_task[i], p_items[p_from + i], p_tool[i], p_call_key[i], p_ordinal[i], p_nth[i], p_position[i],
               p_arguments[i]::json, 'begun', p_on_doubt[i], p_key[i], p_produces[i]::json, p_workers[p_from + i],
               p_tokens[p_from + i], p_call[i], v_now, v_now + make_interval(secs => p_expires_s[i])
          FROM generate_series(1, cardinality(p_task)) i WHERE v_task[i] IS NOT NULL AND v_task[i] <> ALL (v_ended) ORDER BY p_key[i]
        ON CONFLICT (ledger_key) DO NOTHING RETURNING p_from + array_position(p_call, l.call_token) AS place)
    SELECT array_agg(b.place), NULL, v_now INTO v_written FROM b;
    RETURN v_written;
END $$;

-- A cancelled task may still say what it did.
CREATE FUNCTION agentos.put_finished(p_from integer, p_tasks text[], p_key text[], p_call uuid[], p_result text[],
                                     p_exit_code integer[], p_error text[]) RETURNS agentos.written LANGUAGE plpgsql AS $$
DECLARE v_now timestamptz := agentos.clock(); v_written agentos.written;
BEGIN
    WITH f AS (
        UPDATE agentos.tool_ledger l
           SET state = CASE WHEN p_error[array_position(p_call, l.call_token)] IS NULL THEN 'finished' ELSE 'failed' END,
               result = p_result[array_position(p_call, l.call_token)]::json,
               exit_code = p_exit_code[array_position(p_call, l.call_token)],
               error = p_error[array_position(p_call, l.call_token)], finished_at = v_now
         WHERE l.ledger_key = ANY (p_key) AND l.ledger_key = p_key[array_position(p_call, l.call_token)]
           AND p_tasks[p_from + array_position(p_call, l.call_token)] IS NOT NULL AND l.state = 'begun'
        RETURNING p_from + array_position(p_call, l.call_token) AS place)
    SELECT array_agg(f.place), NULL, v_now INTO v_written FROM f;
    RETURN v_written;
END $$;
