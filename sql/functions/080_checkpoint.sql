-- Checkpoints: gapless per task, because the number is taken by an UPDATE of the head after the lease lock.

-- With a lease (p_token): under its fence. Without one: under the head's lock, and refused while a worker holds an item
-- of the task. p_step names this commit: a writer whose reply was lost commits it again, or looks for it, and it is
-- there once.
-- Nearly always a lease is held, its task has a head and the step is new: that takes three statements, and whatever else
-- it is `place_checkpoint` finds out. That the step is new is found out by storing it: asked for before, it is a fifth more.
CREATE FUNCTION agentos.commit_checkpoint(
    p_task text, p_item bigint, p_worker bigint, p_token uuid, p_type text, p_snapshot text, p_sha256 text,
    p_evidence text, p_ordinal integer, p_host text, p_workspace text, p_step uuid)
RETURNS TABLE (sequence_number bigint, created_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE v_ok boolean := agentos.enter_bounded_fence(); v_seq bigint; v_attempt integer; v_now timestamptz;
BEGIN
    IF p_token IS NOT NULL THEN
        SELECT h.attempt INTO v_attempt FROM agentos.lease_held h JOIN agentos.work_items w ON w.item_id = p_item
         WHERE h.item_id = p_item AND h.worker_id + 0 = p_worker AND h.token = p_token AND w.task_id = p_task
           AND (h.expires_at IS NULL OR h.expires_at > agentos.clock()) FOR NO KEY UPDATE OF h;
        IF FOUND THEN
            UPDATE agentos.task_heads t SET last_seq = t.last_seq + 1
             WHERE t.task_id = p_task AND NOT t.cancel_requested RETURNING t.last_seq INTO v_seq;
        END IF;
    END IF;
    IF v_seq IS NULL THEN v_seq := agentos.place_checkpoint(p_task, p_item, p_worker, p_token, p_step); END IF;
    IF v_seq IS NOT NULL THEN
        v_now := agentos.clock();
        INSERT INTO agentos.checkpoints (task_id, sequence_number, item_id, ordinal, checkpoint_type, step_id, snapshot,
               snapshot_sha256, evidence, host, workspace, worker_id, attempt, created_at)
        VALUES (p_task, v_seq, p_item, p_ordinal, p_type, p_step, p_snapshot::json, p_sha256, p_evidence::json, p_host,
                p_workspace, p_worker, v_attempt, v_now)
        ON CONFLICT (task_id, step_id) DO NOTHING;
        IF FOUND THEN
            sequence_number := v_seq;
            created_at := v_now;
            RETURN NEXT;
            RETURN;
        END IF;
        UPDATE agentos.task_heads t SET last_seq = v_seq - 1 WHERE t.task_id = p_task;
    END IF;
    RETURN QUERY SELECT * FROM agentos.committed_step(p_task, p_step);
END $$;

-- The number of a new checkpoint, its head locked; null: the step is stored. Raises what forbids it.
CREATE FUNCTION agentos.place_checkpoint(p_task text, p_item bigint, p_worker bigint, p_token uuid, p_step uuid)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_seq bigint;
BEGIN
    IF p_token IS NULL THEN
        PERFORM agentos.require_item(p_task, p_item);
    ELSIF agentos.fence_live(p_item, p_worker, p_token) <> p_task THEN
        PERFORM agentos.require_item(p_task, p_item);
    END IF;
    v_seq := agentos.next_seq(p_task);
    IF p_token IS NULL THEN PERFORM agentos.refuse_held(p_task, NULL); END IF;
    IF EXISTS (SELECT 1 FROM agentos.checkpoints c WHERE c.task_id = p_task AND c.step_id = p_step) THEN
        UPDATE agentos.task_heads t SET last_seq = v_seq - 1 WHERE t.task_id = p_task;
        RETURN NULL;
    END IF;
    RETURN v_seq;
END $$;

-- The reply to `commit_checkpoint` was lost: what it wrote, if it did.
CREATE FUNCTION agentos.committed_step(p_task text, p_step uuid)
RETURNS TABLE (sequence_number bigint, created_at timestamptz) LANGUAGE sql AS $$
    SELECT c.sequence_number, c.created_at FROM agentos.checkpoints c WHERE c.task_id = p_task AND c.step_id = p_step
$$;

-- Locks the head until the transaction ends; a task of one item gets its head here.
CREATE FUNCTION agentos.next_seq(p_task text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE v_seq bigint;
BEGIN
    UPDATE agentos.task_heads t SET last_seq = t.last_seq + 1 WHERE t.task_id = p_task RETURNING t.last_seq INTO v_seq;
    IF v_seq IS NULL THEN
        PERFORM agentos.require_task(p_task);
        INSERT INTO agentos.task_heads AS t (task_id, last_seq) VALUES (p_task, 1)
        ON CONFLICT (task_id) DO UPDATE SET last_seq = t.last_seq + 1 RETURNING t.last_seq INTO v_seq;
    END IF;
    RETURN v_seq;
END $$;

CREATE FUNCTION agentos.require_item(p_task text, p_item bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_task(p_task);
    IF p_item IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM agentos.work_items w WHERE w.item_id = p_item AND w.task_id = p_task) THEN
        RAISE EXCEPTION 'task % has no work item %', p_task, p_item USING ERRCODE = 'AG004',
            HINT = 'omit work_item_id and store it in the snapshot instead: snapshot={"work_item_id": ...}';
    END IF;
END $$;

CREATE TYPE agentos.checkpoint_row AS (
    task_id text, sequence_number bigint, item_id bigint, ordinal integer, checkpoint_type text, snapshot text,
    snapshot_sha256 text, evidence text, host text, workspace text, created_at timestamptz, superseded_reason text
);

CREATE FUNCTION agentos.checkpoint_of(p_task text, p_seq bigint) RETURNS SETOF agentos.checkpoint_row LANGUAGE sql AS $$
    SELECT c.task_id, c.sequence_number, c.item_id, c.ordinal, c.checkpoint_type, c.snapshot::text, c.snapshot_sha256,
           c.evidence::text, c.host, c.workspace, c.created_at, c.superseded_reason
      FROM agentos.checkpoints c WHERE c.task_id = p_task AND c.sequence_number = p_seq
$$;

-- Newest first, before p_before (null: from the end). p_item null: of the whole task.
CREATE FUNCTION agentos.checkpoints_before(p_task text, p_item bigint, p_before bigint, p_limit integer)
RETURNS SETOF agentos.checkpoint_row LANGUAGE sql AS $$
    SELECT c.task_id, c.sequence_number, c.item_id, c.ordinal, c.checkpoint_type, c.snapshot::text, c.snapshot_sha256,
           c.evidence::text, c.host, c.workspace, c.created_at, c.superseded_reason
      FROM agentos.checkpoints c
     WHERE c.task_id = p_task AND (p_item IS NULL OR c.item_id = p_item) AND (p_before IS NULL OR c.sequence_number < p_before)
       AND c.superseded_at IS NULL
     ORDER BY c.sequence_number DESC LIMIT p_limit
$$;

-- Checkpoints that no longer hold, with the reason each; written under the fence of whoever resumes from an older one.
CREATE FUNCTION agentos.supersede(p_item bigint, p_worker bigint, p_token uuid, p_seqs bigint[], p_reasons text[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_task text := agentos.fence(p_item, p_worker, p_token);
BEGIN
    UPDATE agentos.checkpoints c SET superseded_at = agentos.clock(), superseded_reason = u.reason
      FROM unnest(p_seqs, p_reasons) AS u(seq, reason)
     WHERE c.task_id = v_task AND c.sequence_number = u.seq AND c.superseded_at IS NULL;
    PERFORM agentos.note(v_task, p_item, 'checkpoint_superseded', NULL, p_worker,
                         json_build_object('sequence_number', u.seq, 'reason', u.reason))
       FROM unnest(p_seqs, p_reasons) AS u(seq, reason);
END $$;

-- What an attempt resumed from, for the timeline.
CREATE FUNCTION agentos.note_resume(p_item bigint, p_worker bigint, p_token uuid, p_data text) RETURNS void LANGUAGE sql AS $$
    SELECT agentos.note(agentos.fence(p_item, p_worker, p_token), p_item, 'resumed',
                        (SELECT attempt FROM agentos.lease_held WHERE item_id = p_item), p_worker, p_data::json)
$$;

-- A check of evidence and its verdict. Appended without a fence: it decides nothing, and it was made, whoever made it.
CREATE FUNCTION agentos.keep_verdict(p_task text, p_item bigint, p_worker bigint, p_attempt integer, p_data text)
RETURNS void LANGUAGE sql AS $$
    SELECT agentos.note(p_task, p_item, 'evidence_checked', p_attempt, p_worker, p_data::json)
$$;

-- What the ledger recorded for COMMAND_EXIT evidence: for this command, or the newest call before p_before.
CREATE FUNCTION agentos.recorded_exit(p_task text, p_command text, p_before timestamptz)
RETURNS TABLE (tool_name text, command text, exit_code integer, finished_at timestamptz) LANGUAGE sql AS $$
    SELECT l.tool_name, l.arguments #>> '{}', l.exit_code, l.finished_at FROM agentos.tool_ledger l
     WHERE l.task_id = p_task AND l.state = 'finished' AND l.tool_name NOT LIKE '@%' AND (p_before IS NULL OR l.finished_at <= p_before)
       AND (p_command IS NULL OR l.arguments #>> '{}' = p_command OR l.arguments ->> 'command' = p_command)
     ORDER BY l.finished_at DESC LIMIT 1
$$;
