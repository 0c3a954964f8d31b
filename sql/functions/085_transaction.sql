-- The caller's own transaction, held under the fence of the item whose handler opened it.

-- From here to its end the transaction holds the item: what else is written in it commits while the lease is held, or
-- not at all. It ends by itself after a third of the worker's TTL (at most 5 s): until then the lease cannot be taken
-- back. p_joined: the connection is the caller's, and must be proved to be on the database of this worker, whose id is
-- random. Where the process dies before the COMMIT nothing of it happened, after it all of it did.
CREATE FUNCTION agentos.hold_fence(p_item bigint, p_worker bigint, p_token uuid, p_joined boolean)
RETURNS TABLE (xid text, limit_s float8) LANGUAGE plpgsql AS $$
DECLARE v_ttl interval; v_ms text;
BEGIN
    SELECT w.ttl INTO v_ttl FROM agentos.workers w WHERE w.worker_id = p_worker;
    IF p_joined AND v_ttl IS NULL THEN
        RAISE EXCEPTION 'database % has no worker %: the connection is not on the database of this task', current_database(), p_worker
            USING ERRCODE = 'AG070', HINT = 'pass a connection to the database that the worker uses (its --dsn)';
    END IF;
    PERFORM agentos.fence_live(p_item, p_worker, p_token);
    limit_s := greatest(0.2, least(5, extract(epoch FROM v_ttl) / 3));
    v_ms := (limit_s * 1000)::integer::text;
    PERFORM set_config('lock_timeout', v_ms, true), set_config('statement_timeout', v_ms, true),
            set_config('idle_in_transaction_session_timeout', v_ms, true);
    IF current_setting('server_version_num')::integer >= 170000 THEN
        PERFORM set_config('transaction_timeout', '0', true);  -- while one runs, a new limit changes nothing
        PERFORM set_config('transaction_timeout', v_ms, true);
    END IF;
    xid := pg_current_xact_id()::text;
    RETURN NEXT;
END $$;

-- Raises where a statement of the caller's transaction has failed: its COMMIT would be a ROLLBACK that says nothing.
CREATE FUNCTION agentos.is_usable() RETURNS boolean LANGUAGE sql AS $$
    SELECT true
$$;

-- 'in progress', 'committed', 'aborted'; null: too old, or not known to this server.
CREATE FUNCTION agentos.transaction_status(p_xid text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN p_xid::xid8 < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status(p_xid::xid8)
                ELSE 'in progress' END
$$;

-- The reply to a COMMIT was lost: did it happen? Waits at the lease row until that transaction has ended, and looks in
-- a new statement. A checkpoint of it (p_step) tells for certain, after a failover too; without one its xid does.
CREATE FUNCTION agentos.settled_transaction(p_item bigint, p_worker bigint, p_token uuid, p_step uuid, p_xid text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_task text := agentos.fence(p_item, p_worker, p_token);
BEGIN
    IF p_step IS NOT NULL THEN
        RETURN EXISTS (SELECT 1 FROM agentos.checkpoints c WHERE c.task_id = v_task AND c.step_id = p_step);
    END IF;
    RETURN coalesce(agentos.transaction_status(p_xid) = 'committed', false);
END $$;
