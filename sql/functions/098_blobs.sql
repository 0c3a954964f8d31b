-- Parts of large values, each stored once under its sha256; and what a task is left with when its content is purged.

-- Keeps parts for a task, in the transaction of what names them. p_all: every part that is named; p_new with p_bodies:
-- those the caller is not sure of. A part without a reference may be about to be deleted by collect_blobs: the lock
-- waits for that, and the part is then inserted again. With the reference committed, or this lock held, it stays.
-- What is there is locked before what is missing is inserted, and DO UPDATE locks what came meanwhile: a part that was found
-- and then collected would have to be inserted out of order, and two writers could wait for each other.
CREATE FUNCTION agentos.keep_blobs(p_task text, p_all text[], p_new text[], p_bodies bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v_locked text[]; v_missing integer;
BEGIN
    IF cardinality(p_all) = 0 THEN RETURN; END IF;
    v_locked := ARRAY(SELECT b.sha256 FROM agentos.blobs b WHERE b.sha256 = ANY (p_new) ORDER BY b.sha256 FOR KEY SHARE);
    INSERT INTO agentos.blobs AS b (sha256, body, created_at)
    SELECT u.sha256, u.body, agentos.clock() FROM unnest(p_new, p_bodies) AS u(sha256, body)
     WHERE u.sha256 <> ALL (v_locked) ORDER BY u.sha256
    ON CONFLICT (sha256) DO UPDATE SET orphaned_at = b.orphaned_at;
    INSERT INTO agentos.blob_refs (task_id, sha256) SELECT p_task, u FROM unnest(p_new) u ON CONFLICT DO NOTHING;
    SELECT count(*) INTO v_missing FROM unnest(p_all) u
     WHERE NOT EXISTS (SELECT 1 FROM agentos.blob_refs r WHERE r.task_id = p_task AND r.sha256 = u);
    IF v_missing > 0 THEN
        RAISE EXCEPTION '% parts of a value of task % are not stored', v_missing, p_task
            USING ERRCODE = 'AG045', HINT = 'send all of them; the caller took them for stored by a commit that was rolled back';
    END IF;
END $$;

-- commit_checkpoint for a snapshot whose large parts are stored once each: one commit, or nothing.
CREATE FUNCTION agentos.commit_parted(
    p_task text, p_item bigint, p_worker bigint, p_token uuid, p_type text, p_snapshot text, p_sha256 text,
    p_evidence text, p_ordinal integer, p_host text, p_workspace text, p_step uuid, p_all text[], p_new text[],
    p_bodies bytea[]) RETURNS TABLE (sequence_number bigint, created_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT * FROM agentos.commit_checkpoint(p_task, p_item, p_worker, p_token, p_type, p_snapshot, p_sha256,
                                                         p_evidence, p_ordinal, p_host, p_workspace, p_step);
    PERFORM agentos.keep_blobs(p_task, p_all, p_new, p_bodies);
END $$;

CREATE FUNCTION agentos.get_blobs(p_sha256 text[]) RETURNS TABLE (sha256 text, body bytea) LANGUAGE sql AS $$
    SELECT b.sha256, b.body FROM agentos.blobs b WHERE b.sha256 = ANY (p_sha256)
$$;

-- Deletes parts that nothing has referred to for a while. Locked first, those in use skipped; then asked again in a new
-- statement, which sees every reference that was committed before the lock. Returns how many.
CREATE FUNCTION agentos.collect_blobs(p_grace_s float8, p_limit integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_found text[]; v_gone integer;
BEGIN
    v_found := ARRAY(SELECT b.sha256 FROM agentos.blobs b
                      WHERE b.orphaned_at <= (SELECT agentos.clock()) - make_interval(secs => p_grace_s)
                      ORDER BY b.orphaned_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
    WITH gone AS (
        DELETE FROM agentos.blobs b WHERE b.sha256 = ANY (v_found)
           AND NOT EXISTS (SELECT 1 FROM agentos.blob_refs r WHERE r.sha256 = b.sha256) RETURNING 1)
    SELECT count(*) INTO v_gone FROM gone;
    UPDATE agentos.blobs b SET orphaned_at = NULL WHERE b.sha256 = ANY (v_found);
    RETURN v_gone;
END $$;

-- How many of the next p_limit it would delete, and their bytes. Reads only.
CREATE FUNCTION agentos.collectable_blobs(p_grace_s float8, p_limit integer) RETURNS TABLE (parts integer, bytes bigint)
LANGUAGE sql STABLE AS $$
    SELECT count(*)::integer, coalesce(sum(octet_length(o.body)), 0)::bigint
      FROM (SELECT b.sha256, b.body FROM agentos.blobs b
             WHERE b.orphaned_at <= (SELECT agentos.clock()) - make_interval(secs => p_grace_s)
             ORDER BY b.orphaned_at LIMIT p_limit) o
     WHERE NOT EXISTS (SELECT 1 FROM agentos.blob_refs r WHERE r.sha256 = o.sha256)
$$;

-- A task's references go; parts that no other task refers to are left for collect_blobs.
CREATE FUNCTION agentos.drop_blobs(p_task text) RETURNS integer LANGUAGE sql AS $$
    SELECT agentos.drop_blobs_of(ARRAY[p_task])
$$;

-- The same for several, whose parts are locked in one order.
CREATE FUNCTION agentos.drop_blobs_of(p_tasks text[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_dropped text[];
BEGIN
    WITH gone AS (DELETE FROM agentos.blob_refs r WHERE r.task_id = ANY (p_tasks) RETURNING r.sha256)
    SELECT coalesce(array_agg(g.sha256), '{}') INTO v_dropped FROM gone g;
    PERFORM 1 FROM agentos.blobs b WHERE b.sha256 = ANY (v_dropped) ORDER BY b.sha256 FOR NO KEY UPDATE;
    UPDATE agentos.blobs b SET orphaned_at = agentos.clock() WHERE b.sha256 = ANY (v_dropped)
       AND NOT EXISTS (SELECT 1 FROM agentos.blob_refs r WHERE r.sha256 = b.sha256);
    RETURN cardinality(v_dropped);
END $$;

-- What a task's records take. `parts`: bytes of parts, each counted once for this task.
CREATE FUNCTION agentos.task_bytes(p_task text) RETURNS TABLE (what text, count bigint, bytes bigint) LANGUAGE sql AS $$
    SELECT 'payloads', count(*), coalesce(sum(octet_length(w.payload::text)), 0)::bigint
      FROM agentos.work_items w WHERE w.task_id = p_task
    UNION ALL SELECT 'snapshots', count(*), coalesce(sum(octet_length(c.snapshot::text)), 0)::bigint
      FROM agentos.checkpoints c WHERE c.task_id = p_task
    UNION ALL SELECT 'parts', count(*), coalesce(sum(octet_length(b.body)), 0)::bigint
      FROM agentos.blob_refs r JOIN agentos.blobs b USING (sha256) WHERE r.task_id = p_task
    UNION ALL SELECT 'tool calls', count(*), coalesce(sum(octet_length(l.arguments::text)
                     + coalesce(octet_length(l.result::text), 0)), 0)::bigint
      FROM agentos.tool_ledger l WHERE l.task_id = p_task
    UNION ALL SELECT 'model requests', count(m.request), coalesce(sum(octet_length(m.request::text)), 0)::bigint
      FROM agentos.llm_cache m WHERE m.task_id = p_task
    UNION ALL SELECT 'model outputs', count(*), coalesce(sum(octet_length(m.output::text)), 0)::bigint
      FROM agentos.llm_cache m WHERE m.task_id = p_task
$$;
