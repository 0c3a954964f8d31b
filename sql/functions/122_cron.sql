-- Cron entries: declared by apps, fired by the coordinator. When the next time is, Python's calendar tells, from the
-- database's clock; here it is compared and swapped, so that no time is fired twice whoever asks.

-- An app says what it has: as often as it likes, at each start of a worker. A changed schedule counts from now; under an
-- unchanged one the next time stays, so that nothing missed is forgotten. An entry of a newer version of its handler stays
-- as it is. p_entries: [{name, expression, ..., next_at}].
CREATE FUNCTION agentos.declare_cron(p_entries text) RETURNS integer LANGUAGE sql AS $$
    WITH declared AS (
        INSERT INTO agentos.cron_entries AS c (name, expression, timezone, misfire, misfire_max, kind, queue, version, payload,
               tells_time, priority, max_attempts, timeout_s, deadline_s, budget, next_at, declared_at)
        SELECT e.*, agentos.clock() FROM json_to_recordset(p_entries::json) AS e(name text, expression text, timezone text,
               misfire text, misfire_max integer, kind text, queue text, version integer, payload json, tells_time boolean,
               priority integer, max_attempts integer, timeout_s real, deadline_s float8, budget json, next_at timestamptz)
         ORDER BY e.name
            ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, timezone = excluded.timezone,
               misfire = excluded.misfire, misfire_max = excluded.misfire_max, kind = excluded.kind, queue = excluded.queue,
               version = excluded.version, payload = excluded.payload, tells_time = excluded.tells_time,
               priority = excluded.priority, max_attempts = excluded.max_attempts, timeout_s = excluded.timeout_s,
               deadline_s = excluded.deadline_s, budget = excluded.budget, declared_at = excluded.declared_at,
               next_at = CASE WHEN (c.expression, c.timezone) = (excluded.expression, excluded.timezone)
                              THEN c.next_at ELSE excluded.next_at END
             WHERE excluded.version >= c.version RETURNING 1)
    SELECT count(*)::integer FROM declared
$$;

-- p_due: only those whose time has come. `declared`: a living worker's app has it.
CREATE FUNCTION agentos.list_cron(p_due boolean)
RETURNS TABLE (name text, expression text, timezone text, misfire text, misfire_max integer, kind text, queue text,
               version integer, next_at timestamptz, paused boolean, last_at timestamptz, last_task text, skipped bigint,
               declared boolean, now timestamptz) LANGUAGE sql AS $$
    SELECT c.name, c.expression, c.timezone, c.misfire, c.misfire_max, c.kind, c.queue, c.version, c.next_at, c.paused,
           c.last_at, c.last_task, c.skipped, EXISTS (
               SELECT 1 FROM agentos.workers w WHERE w.state IN ('alive', 'draining') AND w.expires_at > t
                  AND c.name IN (SELECT json_array_elements_text(w.serves -> 'cron'))), t
      FROM agentos.cron_entries c CROSS JOIN agentos.clock() AS t
     WHERE NOT p_due OR c.next_at <= t AND NOT c.paused ORDER BY c.name
$$;

-- Seconds until the next time of any entry; null: there is none.
CREATE FUNCTION agentos.next_cron_s() RETURNS float8 LANGUAGE sql AS $$
    SELECT extract(epoch FROM min(c.next_at) - agentos.clock())::float8 FROM agentos.cron_entries c WHERE NOT c.paused
$$;

-- Makes the tasks of these instants and moves on to p_next, in one commit: dies who fires before it, nothing was fired and
-- the next one does; after it, the time is past for everybody. Null: another was faster, or the entry was changed.
-- A task's id is made of name and instant: one that is there already stays the only one.
CREATE FUNCTION agentos.fire_cron(p_name text, p_expected timestamptz, p_expression text, p_instants timestamptz[],
                                  p_skipped integer, p_next timestamptz) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE v agentos.cron_entries; v_at timestamptz; v_task text; v_made text[] := '{}';
BEGIN
    SELECT * INTO v FROM agentos.cron_entries c
      WHERE c.name = p_name AND c.next_at = p_expected AND c.expression = p_expression AND NOT c.paused FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN NULL; END IF;
    FOREACH v_at IN ARRAY p_instants LOOP
        v_task := format('cron-%s-%s', p_name, to_char(v_at AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"'));
        CONTINUE WHEN EXISTS (SELECT 1 FROM agentos.task_records r WHERE r.task_id = v_task);
        PERFORM agentos.submit_cron(v, v_task, v_at);
        v_made := v_made || v_task;
    END LOOP;
    UPDATE agentos.cron_entries c SET next_at = p_next, skipped = c.skipped + p_skipped,
           last_at = coalesce(p_instants[cardinality(p_instants)], c.last_at),
           last_task = coalesce(v_made[cardinality(v_made)], c.last_task) WHERE c.name = p_name;
    RETURN v_made;
END $$;

CREATE FUNCTION agentos.submit_cron(p_entry agentos.cron_entries, p_task text, p_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE b json := p_entry.budget;
BEGIN
    PERFORM agentos.submit(p_task, p_entry.kind, p_entry.name, CASE WHEN p_entry.tells_time
            THEN (p_entry.payload::jsonb || jsonb_build_object('scheduled_at',
                     to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')))::text
            ELSE p_entry.payload::text END, p_entry.queue, p_entry.priority, p_entry.max_attempts, p_entry.timeout_s, 0,
            p_entry.version);
    IF p_entry.deadline_s IS NOT NULL THEN PERFORM agentos.set_deadline(ARRAY[p_task], p_entry.deadline_s); END IF;
    IF b IS NOT NULL THEN
        PERFORM agentos.set_budget(ARRAY[p_task], NULL, (b ->> 'tokens')::bigint, (b ->> 'cost')::numeric,
                                   (b ->> 'calls')::bigint, (b ->> 'wall_s')::float8, b ->> 'on_exceed');
    END IF;
END $$;

CREATE FUNCTION agentos.require_cron(p_name text) RETURNS agentos.cron_entries LANGUAGE plpgsql AS $$
DECLARE v agentos.cron_entries;
BEGIN
    SELECT * INTO v FROM agentos.cron_entries c WHERE c.name = p_name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no cron entry %', quote_literal(p_name) USING ERRCODE = 'AG061',
            HINT = 'see which there are: agentos cron list';
    END IF;
    RETURN v;
END $$;

-- Fires an entry now, paused or not; its next time stays. p_task: made by the caller, so that one whose reply was lost may
-- say it again.
CREATE FUNCTION agentos.run_cron(p_name text, p_task text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v agentos.cron_entries := agentos.require_cron(p_name);
BEGIN
    PERFORM agentos.submit_cron(v, p_task, agentos.clock());
END $$;

CREATE FUNCTION agentos.pause_cron(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_cron(p_name);
    UPDATE agentos.cron_entries c SET paused = true WHERE c.name = p_name;
END $$;

-- What came while it was paused is not missed: it goes on with p_next.
CREATE FUNCTION agentos.resume_cron(p_name text, p_next timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_cron(p_name);
    UPDATE agentos.cron_entries c SET paused = false, next_at = CASE WHEN c.paused THEN p_next ELSE c.next_at END
     WHERE c.name = p_name;
END $$;

-- Forgets an entry that no app declares any more. Its tasks stay.
CREATE FUNCTION agentos.remove_cron(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_cron(p_name);
    DELETE FROM agentos.cron_entries c WHERE c.name = p_name;
END $$;

-- Entries that no living worker declares, though some run its kind: most likely the app dropped it. It goes on firing.
CREATE FUNCTION agentos.cron_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'cron_undeclared', json_build_object('name', c.name, 'expression', c.expression, 'kind', c.kind, 'next_at', c.next_at)
      FROM agentos.list_cron(false) c
     WHERE NOT c.declared AND NOT c.paused AND EXISTS (
           SELECT 1 FROM agentos.workers w WHERE w.state = 'alive' AND w.expires_at > agentos.clock()
              AND w.role = 'worker' AND c.queue IN (SELECT json_array_elements_text(w.serves -> 'queues')))
$$;
