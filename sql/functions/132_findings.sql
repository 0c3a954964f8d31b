-- More of what `agentos doctor` looks for: what keeps dead rows, what does not fit together, what stands still. Nothing
-- here writes.

-- What keeps the vacuum from doing its work. n_dead_tup is an estimate; the tables are those whose rows come and go.
CREATE FUNCTION agentos.vacuum_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'autovacuum_off', json_build_object('setting', s.name, 'table', NULL) FROM pg_settings s
     WHERE s.name IN ('autovacuum', 'track_counts') AND s.setting = 'off'
    UNION ALL
    SELECT 'autovacuum_off', json_build_object('setting', 'autovacuum_enabled', 'table', c.relname) FROM pg_class c
     WHERE c.relnamespace = 'agentos'::regnamespace
       AND EXISTS (SELECT 1 FROM pg_options_to_table(c.reloptions) o
                    WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)
    UNION ALL
    SELECT 'vacuum_settings', json_build_object('table', c.relname, 'missing', m.missing) FROM pg_class c
     CROSS JOIN LATERAL (
           SELECT array_agg(w.name || ' = ' || w.value ORDER BY w.name) AS missing
             FROM (VALUES ('autovacuum_vacuum_scale_factor', '0'), ('vacuum_truncate', 'off')) w(name, value)
            WHERE NOT EXISTS (SELECT 1 FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = w.name)) m
     WHERE c.relnamespace = 'agentos'::regnamespace AND m.missing IS NOT NULL
       AND c.relname IN ('task_heads', 'lease_ready', 'lease_held', 'begun_claims', 'workers')
    UNION ALL
    SELECT 'bloated', json_build_object('table', t.relname, 'dead', t.n_dead_tup, 'live', t.n_live_tup,
               'bytes', pg_total_relation_size(t.relid), 'vacuumed_at', greatest(t.last_vacuum, t.last_autovacuum))
      FROM pg_stat_user_tables t
     WHERE t.schemaname = 'agentos' AND t.n_dead_tup > 25000 AND t.n_dead_tup > 2 * t.n_live_tup
    UNION ALL
    SELECT 'replication_slot', json_build_object('slot', s.slot_name, 'type', s.slot_type, 'wal_status', s.wal_status,
               'xmin_age', greatest(age(s.xmin), age(s.catalog_xmin)),
               'wal_bytes', pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                                 ELSE pg_current_wal_lsn() END, s.restart_lsn)::bigint)
      FROM pg_replication_slots s WHERE NOT s.active AND (s.restart_lsn IS NOT NULL OR s.xmin IS NOT NULL)
$$;

-- Living processes that do not fit together, or their server. Workers behind a pooler need fewer connections than 4.
CREATE FUNCTION agentos.fleet_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    WITH living AS MATERIALIZED (
        SELECT w.* FROM agentos.workers w WHERE w.state IN ('alive', 'draining') AND w.expires_at > agentos.clock()),
    room AS (
        SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
                   AS usable,
               (SELECT count(*) FROM living w WHERE w.role = 'worker')::integer AS workers,
               count(*)::integer AS used,
               count(*) FILTER (WHERE a.application_name NOT LIKE 'agentos%')::integer AS of_others
          FROM pg_stat_activity a WHERE a.backend_type IN ('client backend', 'walsender'))
    SELECT 'clock_skew', json_build_object('host', w.host, 'skew_s', round(w.clock_skew_ms / 1000.0, 3), 'pid', w.pid)
      FROM (SELECT DISTINCT ON (host) * FROM living ORDER BY host, abs(clock_skew_ms) DESC) w
     WHERE abs(w.clock_skew_ms) > 1000
    UNION ALL
    SELECT 'loop_lag', json_build_object('worker', w.label, 'host', w.host, 'pid', w.pid, 'lag_s', w.loop_lag_ms / 1000.0)
      FROM living w WHERE w.loop_lag_ms > 500
    UNION ALL
    SELECT 'version_skew', json_build_object('versions', json_object_agg(v.version, v.n)) FROM (
        SELECT w.version, count(*) AS n FROM living w WHERE w.role IN ('worker', 'solo') GROUP BY 1) v HAVING count(*) > 1
    UNION ALL
    SELECT 'connection_budget', json_build_object('usable', r.usable, 'used', r.used, 'workers', r.workers,
               'needed', 4 * r.workers + 4 + r.of_others) FROM room r
     WHERE 4 * r.workers + 4 + r.of_others > r.usable OR r.used > 0.9 * r.usable
$$;

-- What goes on and gets nowhere: statements that wait for a lock (over p_wait_s seconds), attempts that recorded nothing
-- for p_silent_s, tasks that failed for good within a day (counted up to 1000), a coordinator that leads and counts nothing.
CREATE FUNCTION agentos.stuck_findings(p_wait_s float8, p_silent_s float8) RETURNS TABLE (finding text, data json)
LANGUAGE sql AS $$
    SELECT 'blocked', json_build_object('pid', a.pid, 'application', a.application_name, 'blockers', pg_blocking_pids(a.pid),
               'waits_s', extract(epoch FROM clock_timestamp() - a.query_start)::bigint, 'query', left(a.query, 120))
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.wait_event_type = 'Lock'
       AND a.query_start < clock_timestamp() - make_interval(secs => p_wait_s)
    UNION ALL
    (SELECT 'silent_attempt', json_build_object('task_id', a.task_id, 'item_id', a.item_id, 'attempt', a.attempt,
               'worker', a.worker, 'host', a.host, 'held_s', extract(epoch FROM agentos.clock() - a.claimed_at)::bigint)
      FROM agentos.silent_attempts(agentos.clock() - make_interval(secs => p_silent_s)) a ORDER BY a.claimed_at LIMIT 20)
    UNION ALL
    SELECT 'failed_tasks', json_build_object('items', count(*), 'task_id', max(w.task_id)) FROM (
        SELECT o.item_id FROM agentos.outcomes o
         WHERE NOT o.kept AND o.status = 'failed' AND o.finished_at > (SELECT agentos.clock() - interval '1 day')
         ORDER BY o.finished_at DESC LIMIT 1000) o JOIN agentos.work_items w USING (item_id) HAVING count(*) > 0
    UNION ALL
    SELECT 'counts_old', json_build_object('age_s', extract(epoch FROM agentos.clock() - r.at)::bigint) FROM (
        SELECT max(s.at) AS at FROM agentos.statistics_runs s) r
     WHERE r.at < agentos.clock() - interval '5 min' AND agentos.is_led('coordinator')
$$;

-- Items that come back and get no further: put off, for their content cannot be opened where they ran; or parked again for
-- what was over before, with the same snapshot: the handler checkpoints anew before it comes to its wait. A sleep may be
-- meant so (somebody polls), and is told of at the fourth time. Of each at most 1000 items are looked at.
CREATE FUNCTION agentos.circle_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'put_off', json_build_object('items', count(*), 'task_id', max(w.task_id), 'error', max(e.data ->> 'message'),
               'fix', max(e.data ->> 'fix'))
      FROM (SELECT s.item_id FROM agentos.scheduled s WHERE s.attempt > 0 ORDER BY s.run_at LIMIT 1000) s
      JOIN agentos.work_items w USING (item_id)
      JOIN LATERAL (SELECT x.event, x.data FROM agentos.events x WHERE x.task_id = w.task_id AND x.item_id = w.item_id
                     ORDER BY x.xact DESC, x.seq DESC LIMIT 1) e ON e.event = 'put_off'
    HAVING count(*) > 0
    UNION ALL
    (SELECT 'waits_again', json_build_object('task_id', k.task_id, 'item_id', k.item_id, 'wait', substr(n.tool_name, 2),
               'arguments', left(n.arguments::text, 200), 'times', l.times)
      FROM (SELECT * FROM agentos.waiting x WHERE x.attempt > 1 ORDER BY x.item_id LIMIT 1000) k
      JOIN agentos.waits v USING (item_id) JOIN agentos.tool_ledger n USING (ledger_key)
      JOIN agentos.checkpoints c ON c.item_id = k.item_id AND c.ordinal = n.ordinal AND c.superseded_at IS NULL
     CROSS JOIN LATERAL (
           SELECT count(*)::integer AS times FROM agentos.tool_ledger o
             JOIN agentos.checkpoints b ON b.item_id = o.item_id AND b.ordinal = o.ordinal
              AND b.snapshot_sha256 = c.snapshot_sha256 AND b.superseded_at IS NULL
            WHERE o.item_id = k.item_id AND o.tool_name = n.tool_name AND o.ordinal < n.ordinal
              AND o.state = 'finished' AND o.replays = 0
              AND (o.tool_name = '@sleep' OR o.arguments::text = n.arguments::text)) l
     WHERE l.times >= CASE n.tool_name WHEN '@sleep' THEN 4 ELSE 1 END ORDER BY k.item_id LIMIT 20)
$$;

-- Everything. A transaction is old after p_old_s seconds, an attempt silent after p_silent_s.
CREATE FUNCTION agentos.findings(p_old_s float8, p_silent_s float8 DEFAULT 3600) RETURNS TABLE (finding text, data text) LANGUAGE sql AS $$
    SELECT f.finding, f.data::text FROM (
        SELECT * FROM agentos.server_findings(p_old_s)
        UNION ALL SELECT * FROM agentos.worker_findings()
        UNION ALL SELECT * FROM agentos.cron_findings()
        UNION ALL SELECT * FROM agentos.work_findings()
        UNION ALL SELECT * FROM agentos.flow_findings()
        UNION ALL SELECT * FROM agentos.circle_findings()
        UNION ALL SELECT * FROM agentos.retention_findings()
        UNION ALL SELECT * FROM agentos.vacuum_findings()
        UNION ALL SELECT * FROM agentos.fleet_findings()
        UNION ALL SELECT * FROM agentos.stuck_findings(least(p_old_s, 5), p_silent_s)) f
$$;

-- For who compares it with his own clock. Not agentos.clock(), which tests shift.
CREATE FUNCTION agentos.server_time() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp()
$$;
