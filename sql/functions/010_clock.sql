-- Time and the frame of every fenced transaction.

-- The only clock that decides expiry. Tests move it by replacing this function (agentos.testing.clock), which takes the owner
-- of the schema: a setting could be set by any session, and a worker with a clock of its own would claim what it likes.
CREATE FUNCTION agentos.clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT clock_timestamp()
$$;

-- The rank of something submitted now: one step of priority is worth 60 s of waiting. STABLE, as `extract` is: declared as
-- IMMUTABLE it is not inlined, and is a call.
CREATE FUNCTION agentos.rank_of(p_at timestamptz, p_priority integer) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (extract(epoch FROM p_at) * 1000000)::bigint - p_priority * 60000000::bigint
$$;

-- Called first by every function that fences. The engine's locks fence at READ COMMITTED only: at a higher level the
-- row lock succeeds against an old snapshot. The timeouts end what would hold a lease's row for hours; those of
-- statements count from the caller's next one on.
-- Hot functions say `v_ok := agentos.enter_fence()`: plpgsql evaluates that itself, while each PERFORM is a statement
-- that is planned, started and ended, for five times the price.
CREATE FUNCTION agentos.enter_fence() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_set text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'agentos needs READ COMMITTED, this transaction is %', current_setting('transaction_isolation')
            USING ERRCODE = 'AG012', HINT = 'open the transaction with ISOLATION LEVEL READ COMMITTED';
    END IF;
    v_set := set_config('lock_timeout', '4s', true) || set_config('statement_timeout', '4s', true)
          || set_config('idle_in_transaction_session_timeout', '4s', true);
    RETURN true;
END $$;

-- The same for a transaction that may be its caller's: it has an end of its own, where the server knows one (from 17 on).
CREATE FUNCTION agentos.enter_bounded_fence() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('server_version_num')::integer >= 170000 THEN
        RETURN agentos.enter_fence() AND set_config('transaction_timeout', '5s', true) <> '';
    END IF;
    RETURN agentos.enter_fence();
END $$;

CREATE FUNCTION agentos.lease_lost(p_item bigint, p_worker bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the lease on item % is no longer held by worker %', p_item, p_worker
        USING ERRCODE = 'AG001', HINT = 'stop working on this item; another worker resumes it from its last checkpoint';
END $$;

-- Proof that the caller still holds the item, held until its transaction ends. Returns the task.
CREATE FUNCTION agentos.fence(p_item bigint, p_worker bigint, p_token uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_ok boolean := agentos.enter_bounded_fence(); v_task text;
BEGIN
    SELECT w.task_id INTO v_task FROM agentos.lease_held h JOIN agentos.work_items w ON w.item_id = p_item
      WHERE h.item_id = p_item AND h.worker_id + 0 = p_worker AND h.token = p_token  -- + 0: found by item, see end_leases
        AND (h.expires_at IS NULL OR h.expires_at > agentos.clock())
        FOR NO KEY UPDATE OF h;
    IF NOT FOUND THEN PERFORM agentos.lease_lost(p_item, p_worker); END IF;
    RETURN v_task;
END $$;

-- The same for writes that begin something: a cancelled task begins nothing more.
CREATE FUNCTION agentos.fence_live(p_item bigint, p_worker bigint, p_token uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_task text := agentos.fence(p_item, p_worker, p_token);
BEGIN
    IF EXISTS (SELECT 1 FROM agentos.task_heads t WHERE t.task_id = v_task AND t.cancel_requested) THEN
        RAISE EXCEPTION 'task % was cancelled', v_task
            USING ERRCODE = 'AG013', HINT = 'let the handler end; nothing it writes now would be kept';
    END IF;
    RETURN v_task;
END $$;

CREATE FUNCTION agentos.note(p_task text, p_item bigint, p_event text, p_attempt integer, p_worker bigint, p_data json)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.events (task_id, item_id, at, event, attempt, worker_id, data)
    VALUES (p_task, p_item, agentos.clock(), p_event, p_attempt, p_worker, p_data)
$$;

-- Day partitions from yesterday to seven days ahead. CREATE and ATTACH, because PARTITION OF takes ACCESS EXCLUSIVE
-- on the parent. Identifiers are made of dates only.
CREATE FUNCTION agentos.ensure_partitions() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_day date; v_name text; v_parent text; v_made integer := 0;
BEGIN
    IF to_regclass(format('agentos.events_%s', to_char(agentos.clock() AT TIME ZONE 'UTC' + interval '7 days', 'YYYYMMDD')))
        IS NOT NULL THEN RETURN 0; END IF;
    IF NOT has_schema_privilege('agentos', 'CREATE') AND to_regclass(format('agentos.events_%s',
        to_char(agentos.clock() AT TIME ZONE 'UTC' + interval '1 day', 'YYYYMMDD'))) IS NOT NULL THEN
        RETURN 0;  -- a role without DDL works on; whoever has it makes them before they run out (agentos doctor warns)
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('agentos.ensure_partitions', 0)), set_config('lock_timeout', '4s', true);
    FOREACH v_parent IN ARRAY ARRAY['outcomes', 'events'] LOOP
        FOR i IN -1..7 LOOP
            v_day := (agentos.clock() AT TIME ZONE 'UTC')::date + i;
            v_name := format('%s_%s', v_parent, to_char(v_day, 'YYYYMMDD'));
            CONTINUE WHEN EXISTS (  -- not to_regclass: what it remembers may be older than who had the lock before
                SELECT 1 FROM pg_class c WHERE c.relname = v_name AND c.relnamespace = 'agentos'::regnamespace);
            EXECUTE format('CREATE TABLE agentos.%I (LIKE agentos.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_name, v_parent);
            EXECUTE format('ALTER TABLE agentos.%I ATTACH PARTITION agentos.%I FOR VALUES FROM (false, %L) TO (false, %L)', v_parent, v_name,
                           v_day::timestamp AT TIME ZONE 'UTC', (v_day + 1)::timestamp AT TIME ZONE 'UTC');
            v_made := v_made + 1;
        END LOOP;
    END LOOP;
    RETURN v_made;
END $$;
