-- The life of a worker row: alive -> draining -> stopped, or -> dead when its beats end.

CREATE FUNCTION agentos.register_worker(p_worker bigint, p_label text, p_host text, p_pid integer, p_process text,
                                        p_version text, p_role text, p_ttl_s float8, p_serves text) RETURNS void
LANGUAGE sql AS $$
    SELECT agentos.ensure_partitions();
    INSERT INTO agentos.workers (worker_id, label, host, pid, process, version, role, state, ttl, started_at, beat_at,
                                 expires_at, serves)
    SELECT p_worker, p_label, p_host, p_pid, p_process, p_version, p_role, 'alive', make_interval(secs => p_ttl_s),
           t, t, t + make_interval(secs => p_ttl_s), p_serves::json FROM agentos.clock() AS t
$$;

-- One row updated per process and beat. Zero rows: declared dead. Brings back the held items of cancelled tasks, and of
-- paused ones, and what time it is here: p_clock_skew_ms is what the worker made of that at its last beat. p_pid: of this
-- session, as its login said; another one's means a pooler, and what sessions there are says nothing of who is behind it.
CREATE FUNCTION agentos.beat(p_worker bigint, p_loop_lag_ms integer, p_clock_skew_ms integer DEFAULT 0, p_pid integer DEFAULT NULL,
                             OUT cancelled bigint[], OUT paused bigint[], OUT server_time timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    server_time := clock_timestamp();
    UPDATE agentos.workers SET beat_at = agentos.clock(), expires_at = agentos.clock() + ttl, loop_lag_ms = p_loop_lag_ms,
           clock_skew_ms = p_clock_skew_ms, sessions_since = agentos.sessions_since(),
           sessions = CASE WHEN p_pid = pg_backend_pid() THEN agentos.process_of(current_setting('application_name')) END
     WHERE worker_id = p_worker AND state IN ('alive', 'draining');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'worker % was declared dead', p_worker
            USING ERRCODE = 'AG005', HINT = 'drop everything it held and start again under a new worker id';
    END IF;
    SELECT coalesce(array_agg(h.item_id) FILTER (WHERE t.cancel_requested), '{}'),
           coalesce(array_agg(h.item_id) FILTER (WHERE t.paused AND NOT t.cancel_requested), '{}') INTO cancelled, paused
      FROM agentos.lease_held h JOIN agentos.work_items w USING (item_id) JOIN agentos.task_heads t USING (task_id)
     WHERE h.worker_id = p_worker AND (t.cancel_requested OR t.paused);
END $$;

-- Says goodbye (p_state: draining or stopped). A stopped worker's leases, if any are left, are reclaimed at once.
CREATE FUNCTION agentos.retire_worker(p_worker bigint, p_state text) RETURNS void LANGUAGE sql AS $$
    DELETE FROM agentos.offers WHERE worker_id + 0 = p_worker;
    UPDATE agentos.workers SET state = p_state WHERE worker_id = p_worker AND state IN ('alive', 'draining')
$$;

-- The claim's reply was lost. FOR UPDATE waits for a claim in flight, the new epoch refuses one still on its way, and
-- the next statement sees what was taken: [{item_id, token}].
CREATE FUNCTION agentos.adopt(p_worker bigint) RETURNS TABLE (claim_epoch integer, item_ids bigint[], tokens uuid[])
LANGUAGE plpgsql AS $$
DECLARE v_epoch integer;
BEGIN
    PERFORM 1 FROM agentos.workers w WHERE w.worker_id = p_worker AND w.state IN ('alive', 'draining') FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'worker % was declared dead', p_worker USING ERRCODE = 'AG005',
            HINT = 'drop everything it held and start again under a new worker id';
    END IF;
    UPDATE agentos.workers w SET claim_epoch = w.claim_epoch + 1 WHERE w.worker_id = p_worker
      RETURNING w.claim_epoch INTO v_epoch;
    RETURN QUERY SELECT v_epoch, coalesce(array_agg(h.item_id), '{}'), coalesce(array_agg(h.token), '{}')
      FROM agentos.lease_held h WHERE h.worker_id = p_worker;
END $$;

-- Declares workers dead whose process is known to be gone from this very machine; expiry is not waited for.
CREATE FUNCTION agentos.declare_dead(p_workers bigint[]) RETURNS integer LANGUAGE sql AS $$
    WITH gone AS (UPDATE agentos.workers SET state = 'dead'
                   WHERE worker_id = ANY (p_workers) AND state IN ('alive', 'draining') RETURNING worker_id),
    offered AS (DELETE FROM agentos.offers o USING gone g WHERE o.worker_id + 0 = g.worker_id)
    SELECT count(*)::integer FROM gone
$$;

CREATE FUNCTION agentos.local_workers(p_host text) RETURNS TABLE (worker_id bigint, pid integer, process text) LANGUAGE sql AS $$
    SELECT w.worker_id, w.pid, w.process FROM agentos.workers w WHERE w.host = p_host AND w.state IN ('alive', 'draining')
$$;
