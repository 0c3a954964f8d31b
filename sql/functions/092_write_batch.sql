-- The durable writes of many items in one transaction: each under its own fence, one commit for all.
--
-- p_checkpoints, p_begun and p_finished are the arguments of the calls of one sort, turned: a row for each argument of
-- the function that does the same alone, in its place, and a last one with the numbers of the calls; a column for each
-- call. Only what is plain is written here, with one statement for all calls of a sort: row by row, starting and ending
-- statements was most of what a call cost. Whatever is not plain (a lease that is lost, a task that is cancelled, a key
-- that is there already) is left out, of the database and of the reply, and its caller asks the function that does it
-- alone: that has the answer, or the error. A batch that fails as a whole (a step stored before, a value that is
-- refused, a deadlock) has written nothing, and each of its calls is then made alone. So nobody's neighbour makes a call
-- fail, and there is no subtransaction.
-- A model's output is not among them: what it costs to record is nothing beside what it took.
-- The process dies before the COMMIT: nothing is there, whoever resumes does it again. After it: all of it is there, and
-- step_id and call_token find it.

CREATE TYPE agentos.held_lease AS (item_id bigint, worker_id bigint, token uuid, task_id text, attempt integer);

CREATE TYPE agentos.written AS (n integer, sequence_number bigint, at timestamptz);

-- Lock order: leases by item, as their index has them (found as `end_leases` finds them), heads by task, then the ledger by
-- key, as the columns come: a nested loop keeps their order, and the planner settings leave nothing else. `= ANY` beside a
-- join: by key also when the statistics say that there is one row. What is written is read in later statements than the
-- locks. A call goes with the lease of its own token: an attempt that was told to end and goes on, and the one after it, may
-- both be in one batch.
CREATE FUNCTION agentos.write_batch(p_items bigint[], p_workers bigint[], p_tokens uuid[], p_checkpoints text[],
                                    p_begun text[], p_finished text[])
RETURNS SETOF agentos.written LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE v_ok boolean := agentos.enter_fence(); v_held agentos.held_lease[]; v_now timestamptz := agentos.clock();
BEGIN
    v_held := ARRAY(
        SELECT (l.item_id, l.worker_id, l.token, w.task_id, l.attempt)::agentos.held_lease
          FROM agentos.lease_held l JOIN agentos.work_items w ON w.item_id = l.item_id
         WHERE l.item_id = ANY (p_items) AND w.item_id = ANY (p_items) AND l.item_id = p_items[array_position(p_tokens, l.token)]
           AND l.worker_id + 0 = p_workers[array_position(p_tokens, l.token)] AND (l.expires_at IS NULL OR l.expires_at > v_now)
           FOR NO KEY UPDATE OF l);
    IF cardinality(p_checkpoints) > 0 THEN RETURN QUERY SELECT * FROM agentos.put_checkpoints(v_held, p_checkpoints); END IF;
    IF cardinality(p_begun) > 0 THEN RETURN QUERY SELECT * FROM agentos.put_begun(v_held, p_begun); END IF;
    IF cardinality(p_finished) > 0 THEN RETURN QUERY SELECT * FROM agentos.put_finished(v_held, p_finished); END IF;
END $$;

-- p: task, item, worker, token, type, snapshot, sha256, evidence, ordinal, host, workspace, step; number. Several of one
-- task are numbered in their order. A task of one item gets its head here.
CREATE FUNCTION agentos.put_checkpoints(p_held agentos.held_lease[], p text[]) RETURNS SETOF agentos.written
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    WITH c AS MATERIALIZED (
        SELECT u.*, h.item_id, h.worker_id, h.attempt, row_number() OVER (PARTITION BY h.task_id ORDER BY u.i) AS place
          FROM unnest(p[1:1], p[2:2], p[4:4], p[5:5], p[6:6], p[7:7], p[8:8], p[9:9], p[10:10], p[11:11], p[12:12], p[13:13])
               WITH ORDINALITY AS u(task_id, item, lease, type, snapshot, sha256, evidence, ordinal, host, workspace, step, n, i)
          JOIN unnest(p_held) h ON h.item_id = u.item::bigint AND h.token = u.lease::uuid AND h.task_id = u.task_id),
    task AS MATERIALIZED (SELECT c.task_id, max(c.place) AS steps FROM c GROUP BY 1 ORDER BY 1),
    counted AS (
        UPDATE agentos.task_heads t SET last_seq = t.last_seq + k.steps FROM task k
         WHERE t.task_id = k.task_id AND t.task_id = ANY (p[1:1]) AND NOT t.cancel_requested
        RETURNING t.task_id, t.last_seq - k.steps AS last_seq),
    made AS (
        INSERT INTO agentos.task_heads AS t (task_id, last_seq)
        SELECT k.task_id, k.steps FROM task k
         WHERE NOT EXISTS (SELECT 1 FROM agentos.task_heads x WHERE x.task_id = k.task_id AND x.task_id = ANY (p[1:1]))
        ON CONFLICT DO NOTHING RETURNING t.task_id, 0::bigint AS last_seq),
    stored AS (
        INSERT INTO agentos.checkpoints AS s (task_id, sequence_number, item_id, ordinal, checkpoint_type, step_id, snapshot,
               snapshot_sha256, evidence, host, workspace, worker_id, attempt, created_at)
        SELECT c.task_id, b.last_seq + c.place, c.item_id, c.ordinal::integer, c.type, c.step::uuid, c.snapshot::json, c.sha256,
               c.evidence::json, c.host, c.workspace, c.worker_id, c.attempt, agentos.clock()
          FROM (SELECT * FROM counted UNION ALL SELECT * FROM made) b JOIN c ON c.task_id = b.task_id
        RETURNING s.step_id, s.sequence_number, s.created_at)
    SELECT c.n::integer, s.sequence_number, s.created_at FROM stored s JOIN c ON c.step::uuid = s.step_id;
END $$;

-- What is begun for the first time. p: key, task, item, worker, token, tool, call_key, ordinal, nth, arguments, on_doubt,
-- produces, expires_s, force, call_token, position; number.
CREATE FUNCTION agentos.put_begun(p_held agentos.held_lease[], p text[]) RETURNS SETOF agentos.written LANGUAGE plpgsql AS $$
DECLARE v_at timestamptz := agentos.clock();
BEGIN
    RETURN QUERY
    WITH b AS MATERIALIZED (
        SELECT u.*, h.item_id, h.worker_id, h.token
          FROM unnest(p[1:1], p[2:2], p[3:3], p[5:5], p[6:6], p[7:7], p[8:8], p[9:9], p[10:10], p[11:11], p[12:12], p[13:13],
                      p[15:15], p[16:16], p[17:17]) AS u(key, task_id, item, lease, tool, call_key, ordinal, nth, arguments,
                                                         on_doubt, produces, expires_s, call_token, "position", n)
          JOIN unnest(p_held) h ON h.item_id = u.item::bigint AND h.token = u.lease::uuid
         WHERE NOT EXISTS (SELECT 1 FROM agentos.task_heads t
                            WHERE t.task_id = h.task_id AND t.task_id = ANY (p[2:2]) AND t.cancel_requested)),
    begun AS (
        INSERT INTO agentos.tool_ledger AS l (ledger_key, task_id, item_id, tool_name, call_key, ordinal, nth, position, arguments,
               state, on_doubt, idempotency_key, produces, worker_id, token, call_token, begun_at, expires_at)
        SELECT b.key, b.task_id, b.item_id, b.tool, b.call_key, b.ordinal::integer, b.nth::integer, b."position"::integer,
               b.arguments::json, 'begun', b.on_doubt, b.key, b.produces::json, b.worker_id, b.token, b.call_token::uuid, v_at,
               v_at + make_interval(secs => b.expires_s::float8)
          FROM b ON CONFLICT (ledger_key) DO NOTHING RETURNING l.call_token)
    SELECT b.n::integer, NULL::bigint, v_at FROM begun JOIN b ON b.call_token::uuid = begun.call_token;
END $$;

-- p: key, call_token, item, worker, token, result, exit_code, error; number. A cancelled task may still say what it did.
CREATE FUNCTION agentos.put_finished(p_held agentos.held_lease[], p text[]) RETURNS SETOF agentos.written
LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    UPDATE agentos.tool_ledger l SET state = CASE WHEN u.error IS NULL THEN 'finished' ELSE 'failed' END, result = u.result::json,
           exit_code = u.exit_code::integer, error = u.error, finished_at = agentos.clock()
      FROM unnest(p[1:1], p[2:2], p[3:3], p[5:5], p[6:6], p[7:7], p[8:8], p[9:9])
           AS u(key, call_token, item, lease, result, exit_code, error, n)
      JOIN unnest(p_held) h ON h.item_id = u.item::bigint AND h.token = u.lease::uuid
     WHERE l.ledger_key = u.key AND l.ledger_key = ANY (p[1:1]) AND l.call_token = u.call_token::uuid AND l.state = 'begun'
    RETURNING u.n::integer, NULL::bigint, l.finished_at;
END $$;
