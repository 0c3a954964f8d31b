-- Forking: a new task that begins at a checkpoint of another one, which is only read.

-- Which record a call of item p_item (of task p_task) finds: made of what `agentos.core.identity` makes it of. Arguments
-- are stored in canonical form, and JSON's texts are escaped by to_json as they are there.
CREATE FUNCTION agentos.call_key(p_call agentos.tool_ledger, p_task text, p_item bigint) RETURNS text LANGUAGE sql AS $$
    SELECT encode(sha256(convert_to(CASE
        WHEN p_call.call_key IS NOT NULL THEN format('["item-key",%s,%s]', p_item, to_json(p_call.call_key))
        WHEN p_call.nth IS NOT NULL THEN format('["item-place",%s,%s,%s,%s,%s]', p_item, p_call.ordinal,
                                                to_json(p_call.tool_name), p_call.arguments, p_call.nth)
        ELSE format('["quick-tool",%s,%s,%s]', to_json(p_call.tool_name), p_call.arguments, to_json(p_task))
        END, 'UTF8')), 'hex')
$$;

-- A child task that its parent's record names, if it has not ended; null: it has, or the record names none.
CREATE FUNCTION agentos.living_child(p_call agentos.tool_ledger) RETURNS text LANGUAGE sql AS $$
    SELECT t.task_id FROM agentos.tasks t
     WHERE p_call.tool_name = '@spawn' AND t.task_id = p_call.result ->> 'task_id'
       AND t.status NOT IN ('completed', 'failed', 'cancelled')
$$;

-- Every recorded call of a task, and whether it came after the checkpoint; `living`: its child task has not ended. Writes
-- nothing.
CREATE FUNCTION agentos.fork_calls(p_task text, p_seq bigint)
RETURNS TABLE (idempotency_key text, item_id bigint, item_key text, tool_name text, arguments text, state text, on_doubt text,
               executions integer, begun_at timestamptz, finished_at timestamptz, after boolean, living boolean)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_checkpoint(p_task, p_seq);
    RETURN QUERY
    SELECT l.idempotency_key, l.item_id, w.key, l.tool_name, l.arguments::text, l.state, l.on_doubt, l.executions, l.begun_at,
           l.finished_at, a.ledger_key IS NOT NULL, agentos.living_child(l) IS NOT NULL
      FROM agentos.tool_ledger l
      LEFT JOIN agentos.calls_after(p_task, p_seq) a ON a.ledger_key = l.ledger_key
      LEFT JOIN agentos.work_items w ON w.item_id = l.item_id
     WHERE l.task_id = p_task ORDER BY l.begun_at, l.ledger_key;
END $$;

-- What goes with a fork: {"ledger_key", "new_key", "item_id", "action"} of each record that it takes over. Of what came
-- before the checkpoint all but waits that are not over; of what came after it also not what is to be executed again, what
-- failed, and child tasks that have not ended. An answer to a fork's own call would otherwise be one to somebody else's.
CREATE FUNCTION agentos.forked_calls(p_task text, p_seq bigint, p_fork text, p_old bigint[], p_new bigint[], p_choices json)
RETURNS TABLE (ledger_key text, new_key text, item_id bigint, action text) LANGUAGE sql AS $$
    SELECT l.ledger_key, agentos.call_key(l, p_fork, m.new), m.new,
           CASE WHEN a.ledger_key IS NOT NULL THEN p_choices -> l.tool_name ->> 'action' END
      FROM agentos.tool_ledger l
      LEFT JOIN unnest(p_old, p_new) AS m(old, new) ON m.old = l.item_id
      LEFT JOIN agentos.calls_after(p_task, p_seq) a ON a.ledger_key = l.ledger_key
     WHERE l.task_id = p_task AND NOT (l.tool_name LIKE '@%' AND l.state = 'begun')
       AND (a.ledger_key IS NULL OR p_choices -> l.tool_name ->> 'action' = 'stub'
            OR p_choices -> l.tool_name IS NULL AND l.state <> 'failed' AND agentos.living_child(l) IS NULL)
$$;

-- Refuses what could not go along whole: a child task of before the checkpoint that has not ended would tell its parent
-- and nobody else; a record whose key is made of something else would not be found, and its effect done again.
CREATE FUNCTION agentos.require_forkable(p_task text, p_seq bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_child text; v_call text;
BEGIN
    SELECT agentos.living_child(l) INTO v_child FROM agentos.tool_ledger l
     WHERE l.task_id = p_task AND agentos.living_child(l) IS NOT NULL
       AND l.ledger_key NOT IN (SELECT a.ledger_key FROM agentos.calls_after(p_task, p_seq) a) LIMIT 1;
    IF v_child IS NOT NULL THEN
        RAISE EXCEPTION 'task % cannot be forked from checkpoint %: its child task % of before has not ended', p_task, p_seq, v_child
            USING ERRCODE = 'AG047', HINT = 'wait for it (agentos wait ' || v_child || '), or fork from an earlier checkpoint';
    END IF;
    SELECT format('%s(%s)', l.tool_name, left(l.arguments::text, 200)) INTO v_call FROM agentos.tool_ledger l
     WHERE l.task_id = p_task AND l.ledger_key <> agentos.call_key(l, p_task, l.item_id) LIMIT 1;
    IF v_call IS NOT NULL THEN
        RAISE EXCEPTION 'task % cannot be forked: the record of % has a key that is not made of its call', p_task, v_call
            USING ERRCODE = 'AG049', HINT = 'go back within the task instead: agentos rewind ' || p_task;
    END IF;
END $$;

-- nothing -> ready, waiting, outcome. Makes p_fork, a task that begins at checkpoint p_seq of p_task (0: the beginning),
-- with records of its own; p_task is locked against a purge or a rewind meanwhile, and stays as it is. p_choices as in
-- `rewind_task`, of the calls after the checkpoint. p_outputs: what models answered p_task answers the fork, too. Its
-- handlers' versions, limits of budget and retries are those of p_task; what was spent, deadline, parent, pause, signals
-- and submit's idempotency key are not. One commit: who dies before it has made nothing, after it the fork is there, and a
-- worker may have begun. Returns the items that are open. Raises TaskExists, UnknownCheckpoint, TaskPurged, TaskOpen.
CREATE FUNCTION agentos.fork_task(p_task text, p_seq bigint, p_fork text, p_choices text, p_outputs boolean, p_by text)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v_old bigint[]; v_new bigint[]; v_open bigint[];
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_checkpoint(p_task, p_seq);
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = p_task FOR UPDATE;
    PERFORM 1 FROM agentos.task_records r WHERE r.task_id = p_task FOR SHARE;  -- a task without a head is purged here
    PERFORM agentos.require_checkpoint(p_task, p_seq), agentos.require_forkable(p_task, p_seq);
    v_old := ARRAY(SELECT w.item_id FROM agentos.work_items w WHERE w.task_id = p_task ORDER BY w.seq);
    v_new := ARRAY(SELECT nextval('agentos.item_ids') FROM generate_subscripts(v_old, 1));
    v_open := ARRAY(SELECT m.new FROM unnest(v_old, v_new) AS m(old, new)
                     WHERE m.old IN (SELECT r.item_id FROM agentos.rewound_items(p_task, p_seq) r) ORDER BY m.new);
    PERFORM agentos.fork_record(p_task, p_seq, p_fork, v_old, v_new, cardinality(v_open), p_outputs);
    PERFORM agentos.fork_items(p_task, p_fork, v_old, v_new, v_open);
    PERFORM agentos.fork_records(p_task, p_seq, p_fork, v_old, v_new, p_choices::json);
    PERFORM agentos.note(p_fork, m.new, 'forked', 1, NULL, json_build_object('from', p_task, 'item', m.old))
       FROM unnest(v_old, v_new) AS m(old, new) ORDER BY m.new;
    PERFORM agentos.note(p_fork, NULL, 'forked', NULL, NULL, json_build_object('from', p_task, 'to', p_seq, 'by', p_by,
                         'items', v_open, 'choices', p_choices::json));
    PERFORM agentos.reopen(p_fork, v_open);  -- as second attempts, by the notes: only those look for a checkpoint
    IF cardinality(v_new) > 0 THEN
        PERFORM agentos.finish_tasks(ARRAY[p_fork]);  -- all completed before the checkpoint: nobody else would end it
    END IF;
    RETURN v_open;
END $$;

-- The fork itself. A task of one item stays one; the head goes on numbering where the checkpoint is.
CREATE FUNCTION agentos.fork_record(p_task text, p_seq bigint, p_fork text, p_old bigint[], p_new bigint[], p_open integer,
                                    p_outputs boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agentos.task_records (task_id, kind, title, payload, queue, single, created_at)
    SELECT p_fork, r.kind, r.title, r.payload, r.queue, p_new[array_position(p_old, r.single)], agentos.clock()
      FROM agentos.task_records r WHERE r.task_id = p_task ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task % exists already', p_fork
            USING ERRCODE = 'AG006', HINT = 'choose another task_id for the fork, or leave it out and one is made';
    END IF;
    INSERT INTO agentos.task_heads (task_id, last_seq, open_items, outputs_of)
    SELECT p_fork, p_seq, CASE WHEN r.single IS NULL OR t.open_items IS NOT NULL THEN p_open END,
           CASE WHEN p_outputs THEN coalesce(t.outputs_of, p_task) END
      FROM agentos.task_records r LEFT JOIN agentos.task_heads t USING (task_id) WHERE r.task_id = p_task;
    INSERT INTO agentos.budgets (task_id, max_tokens, max_cost, max_calls, max_wall_s, on_exceed)
    SELECT p_fork, b.max_tokens, b.max_cost, b.max_calls, b.max_wall_s, b.on_exceed FROM agentos.budgets b
     WHERE b.task_id = p_task AND (b.max_tokens, b.max_cost, b.max_calls, b.max_wall_s) IS DISTINCT FROM (NULL, NULL, NULL, NULL);
END $$;

-- Its items, each with its priority kept; those that completed before the checkpoint are completed, at no cost of time.
CREATE FUNCTION agentos.fork_items(p_task text, p_fork text, p_old bigint[], p_new bigint[], p_open bigint[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO agentos.work_items (item_id, task_id, seq, lane, max_attempts, single, timeout_s, rank, key, payload)
    SELECT m.new, p_fork, w.seq, w.lane, w.max_attempts, w.single, w.timeout_s,
           w.rank + (extract(epoch FROM agentos.clock() - r.created_at) * 1000000)::bigint, w.key, w.payload
      FROM unnest(p_old, p_new) AS m(old, new) JOIN agentos.work_items w ON w.item_id = m.old
      JOIN agentos.task_records r ON r.task_id = p_task;
    INSERT INTO agentos.item_deps (needs, item_id)
    SELECT n.new, m.new FROM unnest(p_old, p_new) AS m(old, new) JOIN agentos.item_deps d ON d.item_id = m.old
      JOIN unnest(p_old, p_new) AS n(old, new) ON n.old = d.needs;
    INSERT INTO agentos.outcomes (item_id, attempt, failures, crashes, status, finished_at, result, kept)
    SELECT m.new, o.attempt, o.failures, o.crashes, o.status, o.finished_at, o.result,
           o.finished_at < agentos.clock() - interval '1 day'  -- the partition of that day may be on its way out
      FROM unnest(p_old, p_new) AS m(old, new) JOIN agentos.outcomes o ON o.item_id = m.old WHERE m.new <> ALL (p_open)
$$;

-- Checkpoints up to p_seq, calls, answers, parts of snapshots. A replayed call keeps its idempotency key, one in doubt
-- too: what was perhaps done was done under it. No position: nothing is held against a changed program.
CREATE FUNCTION agentos.fork_records(p_task text, p_seq bigint, p_fork text, p_old bigint[], p_new bigint[], p_choices json)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.checkpoints (task_id, sequence_number, item_id, ordinal, checkpoint_type, step_id, snapshot,
           snapshot_sha256, evidence, host, workspace, worker_id, created_at, superseded_at, superseded_reason)
    SELECT p_fork, c.sequence_number, m.new, c.ordinal, c.checkpoint_type, c.step_id, c.snapshot, c.snapshot_sha256, c.evidence,
           c.host, c.workspace, c.worker_id, c.created_at, c.superseded_at, c.superseded_reason
      FROM agentos.checkpoints c LEFT JOIN unnest(p_old, p_new) AS m(old, new) ON m.old = c.item_id
     WHERE c.task_id = p_task AND c.sequence_number <= p_seq;
    INSERT INTO agentos.blob_refs (task_id, sha256) SELECT p_fork, b.sha256 FROM agentos.blob_refs b WHERE b.task_id = p_task;
    WITH taken AS (
        SELECT f.new_key, f.item_id AS new_item, coalesce(f.action, '') = 'stub' AS stubbed,
               p_choices -> l.tool_name AS choice, l.*
          FROM agentos.forked_calls(p_task, p_seq, p_fork, p_old, p_new, p_choices) f
          JOIN agentos.tool_ledger l USING (ledger_key))
    INSERT INTO agentos.tool_ledger (ledger_key, task_id, item_id, tool_name, call_key, ordinal, nth, arguments, state, on_doubt,
           idempotency_key, produces, result, exit_code, error, call_token, executions, begun_at, finished_at, expires_at)
    SELECT l.new_key, p_fork, l.new_item, l.tool_name, l.call_key, l.ordinal, l.nth, l.arguments,
           CASE WHEN l.stubbed THEN 'finished' ELSE l.state END, l.on_doubt,
           CASE WHEN l.stubbed OR l.state = 'failed' THEN l.new_key ELSE l.idempotency_key END,
           CASE WHEN l.stubbed THEN '[]' ELSE l.produces END, CASE WHEN l.stubbed THEN l.choice -> 'result' ELSE l.result END,
           CASE WHEN l.stubbed THEN (l.choice ->> 'exit_code')::integer ELSE l.exit_code END,
           CASE WHEN NOT l.stubbed THEN l.error END, gen_random_uuid(), 0, l.begun_at,
           CASE WHEN l.stubbed THEN agentos.clock() ELSE l.finished_at END, l.expires_at FROM taken l;
    INSERT INTO agentos.approvals (ledger_key, item_id, task_id, question, shown, shown_sha256, options, asked_at, approved,
           option, answered_by, answered_at)
    SELECT f.new_key, f.item_id, p_fork, a.question, a.shown, a.shown_sha256, a.options, a.asked_at, a.approved, a.option,
           a.answered_by, a.answered_at
      FROM agentos.forked_calls(p_task, p_seq, p_fork, p_old, p_new, p_choices) f JOIN agentos.approvals a USING (ledger_key)
$$;

-- Of a fork: the task whose model outputs answer it, too. Null: none.
CREATE FUNCTION agentos.outputs_of(p_task text) RETURNS text LANGUAGE sql AS $$
    SELECT t.outputs_of FROM agentos.task_heads t WHERE t.task_id = p_task
$$;
