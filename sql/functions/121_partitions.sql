-- Retention of outcomes and events: the partition of a day goes as a whole, and never with a row that something live needs.
-- The steps: rows of what lives move to the parent's kept partition, in slices; `seal_partition` finds under lock that
-- none is left, and lets none come in; DETACH CONCURRENTLY (a statement of its own); `drop_partition` looks once more.
-- Each is a commit, and who dies at any of them leaves a state that the next round knows and goes on from.

-- Day partitions that ended by these times (null: none goes), and those on their way out, oldest first. state: attached, sealed, detaching, detached.
-- owned: whether the caller may detach it himself. rows: as the server's statistics have them.
CREATE FUNCTION agentos.partitions_due(p_outcomes timestamptz, p_events timestamptz)
RETURNS TABLE (parent text, name text, day date, state text, owned boolean, rows bigint, bytes bigint) LANGUAGE sql STABLE AS $$
    SELECT p.parent, c.relname, p.day, CASE
               WHEN i.inhrelid IS NULL THEN 'detached' WHEN i.inhdetachpending THEN 'detaching'
               WHEN EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'sealed') THEN 'sealed'
               ELSE 'attached' END,
           pg_has_role(session_user, c.relowner, 'USAGE'), greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
      FROM pg_class c
      LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
     CROSS JOIN LATERAL (SELECT split_part(c.relname, '_', 1) AS parent, to_date(split_part(c.relname, '_', 2), 'YYYYMMDD') AS day) p
     WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^(outcomes|events)_[0-9]{8}$'
       AND (i.inhrelid IS NULL OR i.inhdetachpending OR (p.day + 1)::timestamp AT TIME ZONE 'UTC' <= CASE
               WHEN p.parent = 'outcomes' AND p_outcomes IS NOT NULL THEN least(agentos.clock() - interval '1 day', p_outcomes)
               WHEN p.parent = 'events' AND p_events IS NOT NULL THEN least(agentos.clock() - interval '1 day', p_events) END)
     ORDER BY p.day, c.relname
$$;

-- The name of a day partition, checked: it becomes part of statements.
CREATE FUNCTION agentos.day_partition(p_name text, OUT parent text, OUT day date) LANGUAGE plpgsql AS $$
BEGIN
    IF p_name !~ '^(outcomes|events)_[0-9]{8}$' OR to_regclass('agentos.' || p_name) IS NULL THEN
        RAISE EXCEPTION 'there is no day partition %', p_name USING ERRCODE = 'AG051',
            HINT = 'see which there are: agentos retention';
    END IF;
    parent := split_part(p_name, '_', 1); day := to_date(split_part(p_name, '_', 2), 'YYYYMMDD');
END $$;

CREATE FUNCTION agentos.day_began(p_name text) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT (agentos.day_partition(p_name)).day::timestamp AT TIME ZONE 'UTC'
$$;

-- Whether an outcome may not go: its item is there. Of one that is not nothing can come to need it again.
-- Of events: their task is there and has not ended.
CREATE FUNCTION agentos.holds_live(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_found boolean;
BEGIN
    IF (agentos.day_partition(p_name)).parent = 'outcomes' THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM agentos.%I o JOIN agentos.work_items w USING (item_id))', p_name)
           INTO v_found;
    ELSE
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM (SELECT DISTINCT e.task_id FROM agentos.%I e) e '
                       'JOIN agentos.task_records r USING (task_id) WHERE agentos.ended_at(e.task_id) IS NULL)', p_name)
           INTO v_found;
    END IF;
    RETURN v_found;
END $$;

-- Moves outcomes whose item is there to the kept partition: among the next p_limit after p_after, by item. A move is one
-- step for whoever reads: the row is never in both places or in none. Their heads and records are locked, as by all
-- that write an outcome again. after: where to go on; null: that was all.
CREATE FUNCTION agentos.keep_outcomes(p_name text, p_after bigint, p_limit integer, OUT after bigint, OUT count integer)
LANGUAGE plpgsql AS $$
DECLARE v_items bigint[]; v_tasks text[]; v_from timestamptz := agentos.day_began(p_name); v_ok boolean := agentos.enter_fence();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('agentos.retention', 0));
    v_items := ARRAY(SELECT o.item_id FROM agentos.outcomes o WHERE NOT o.kept AND o.finished_at >= v_from
                        AND o.finished_at < v_from + interval '24 hours' AND o.item_id > p_after ORDER BY o.item_id LIMIT p_limit);
    after := v_items[p_limit];
    v_items := ARRAY(SELECT w.item_id FROM agentos.work_items w WHERE w.item_id = ANY (v_items));
    v_tasks := ARRAY(SELECT DISTINCT w.task_id FROM agentos.work_items w WHERE w.item_id = ANY (v_items) ORDER BY 1);
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = ANY (v_tasks) ORDER BY t.task_id FOR UPDATE;
    PERFORM 1 FROM agentos.task_records r WHERE r.task_id = ANY (v_tasks) ORDER BY r.task_id FOR NO KEY UPDATE;
    UPDATE agentos.outcomes o SET kept = true WHERE NOT o.kept AND o.finished_at >= v_from
       AND o.finished_at < v_from + interval '24 hours' AND o.item_id = ANY (v_items);
    GET DIAGNOSTICS count = ROW_COUNT;
END $$;

-- The same for events of tasks that have not ended: of the next p_limit events after p_after, and what is left of the
-- last one's task.
CREATE FUNCTION agentos.keep_events(p_name text, p_after text, p_limit integer, OUT after text, OUT count integer)
LANGUAGE plpgsql AS $$
DECLARE v_tasks text[]; v_from timestamptz := agentos.day_began(p_name); v_ok boolean := agentos.enter_fence();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('agentos.retention', 0));
    v_tasks := ARRAY(SELECT e.task_id FROM agentos.events e WHERE NOT e.kept AND e.at >= v_from
                        AND e.at < v_from + interval '24 hours' AND e.task_id > p_after ORDER BY e.task_id LIMIT p_limit);
    after := v_tasks[p_limit];
    UPDATE agentos.events e SET kept = true WHERE NOT e.kept AND e.at >= v_from AND e.at < v_from + interval '24 hours'
       AND e.task_id = ANY (ARRAY(SELECT r.task_id FROM agentos.task_records r
                                   WHERE r.task_id = ANY (v_tasks) AND agentos.ended_at(r.task_id) IS NULL));
    GET DIAGNOSTICS count = ROW_COUNT;
END $$;

CREATE FUNCTION agentos.refuse_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'partition % is on its way out', TG_TABLE_NAME USING ERRCODE = 'AG051',
        HINT = 'what is older than its day is inserted with kept = true';
END $$;

-- Nothing in it is live, and from here on nothing comes in: so it stays. SHARE ROW EXCLUSIVE waits for who writes it, and
-- keeps no reader waiting. False: something in it lives; keep it first.
CREATE FUNCTION agentos.seal_partition(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_day record := agentos.day_partition(p_name); v_set text := set_config('lock_timeout', '1s', true);
BEGIN
    EXECUTE format('LOCK TABLE agentos.%I IN SHARE ROW EXCLUSIVE MODE', p_name);
    IF agentos.holds_live(p_name) THEN RETURN false; END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER sealed BEFORE INSERT ON agentos.%I '
                   'FOR EACH ROW EXECUTE FUNCTION agentos.refuse_sealed()', p_name);
    RETURN true;
END $$;

-- Detached (or detached here: by a role that cannot do it CONCURRENTLY, for a moment under an exclusive lock) and dropped,
-- if under the lock nothing in it is live; else it is a partition of its parent again, and false. One commit.
CREATE FUNCTION agentos.drop_partition(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v record := agentos.day_partition(p_name); v_from timestamptz := agentos.day_began(p_name); v_pending boolean;
        v_set text := set_config('lock_timeout', '500ms', true);
BEGIN
    IF v_from + interval '48 hours' > agentos.clock() THEN
        RAISE EXCEPTION 'the day of partition % has not been over for a day', p_name USING ERRCODE = 'AG051',
            HINT = 'completions may still write into it; wait';
    END IF;
    SELECT i.inhdetachpending INTO v_pending FROM pg_inherits i WHERE i.inhrelid = to_regclass('agentos.' || p_name);
    IF FOUND THEN
        EXECUTE format('ALTER TABLE agentos.%I DETACH PARTITION agentos.%I %s', v.parent, p_name,
                       CASE WHEN v_pending THEN 'FINALIZE' ELSE '' END);
    END IF;
    EXECUTE format('LOCK TABLE agentos.%I IN ACCESS EXCLUSIVE MODE', p_name);
    IF NOT agentos.holds_live(p_name) THEN
        EXECUTE format('DROP TABLE agentos.%I', p_name);
        RETURN true;
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS sealed ON agentos.%I', p_name);
    EXECUTE format('ALTER TABLE agentos.%I ATTACH PARTITION agentos.%I FOR VALUES FROM (false, %L) TO (false, %L)', v.parent,
                   p_name, v_from, v_from + interval '24 hours');
    RETURN false;
END $$;

-- What a round did, for who looks. p_done: all that was due.
CREATE FUNCTION agentos.note_retention(p_done boolean, p_blocked json) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.retention_rounds AS r (began_at, done_at, blocked)
    VALUES (agentos.clock(), CASE WHEN p_done THEN agentos.clock() END, p_blocked)
    ON CONFLICT (one) DO UPDATE SET began_at = excluded.began_at, done_at = coalesce(excluded.done_at, r.done_at),
       blocked = excluded.blocked
$$;

-- Of the tasks made before p_before, the p_limit oldest at most: how many there are, how many of them ended by then, and
-- what those take, by what a task takes on average. Reads only.
CREATE FUNCTION agentos.retirable_tasks(p_before timestamptz, p_limit integer)
RETURNS TABLE (made integer, ended integer, bytes bigint) LANGUAGE sql STABLE AS $$
    SELECT count(*)::integer, count(*) FILTER (WHERE t.ended <= p_before)::integer,
           (count(*) FILTER (WHERE t.ended <= p_before) * (
               SELECT sum(pg_total_relation_size(c.oid)) / greatest(max(c.reltuples) FILTER (WHERE c.relname = 'task_records'), 1)
                 FROM pg_class c WHERE c.relnamespace = 'agentos'::regnamespace AND c.relname IN ('task_records', 'task_heads',
                      'work_items', 'checkpoints', 'tool_ledger', 'llm_cache', 'approvals', 'signals')))::bigint
      FROM (SELECT agentos.ended_at(r.task_id) AS ended FROM agentos.task_records r
             WHERE r.created_at < p_before ORDER BY r.created_at LIMIT p_limit) t
$$;

-- Rounds that do not come to their end, and partitions that cannot go.
CREATE FUNCTION agentos.retention_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'retention_behind', json_build_object('age_s', extract(epoch FROM agentos.clock() - r.done_at)::bigint)
      FROM agentos.retention_rounds r WHERE r.done_at < agentos.clock() - interval '2 days' AND agentos.is_led('coordinator')
    UNION ALL
    SELECT 'partition_blocked', json_build_object('partition', b.key, 'reason', b.value)
      FROM agentos.retention_rounds r CROSS JOIN LATERAL json_each_text(r.blocked) b
$$;
