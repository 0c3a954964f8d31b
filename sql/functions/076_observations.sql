-- What the leading coordinator tells metrics of the whole pool, beside the statistics: nothing here walks over items.

-- oldest_transaction_s, horizon_age (in transactions): what keeps dead rows. Of others' sessions a role without
-- pg_read_all_stats sees nothing. unroutable: lanes with ready items that no living worker serves.
CREATE FUNCTION agentos.observations()
RETURNS TABLE (oldest_transaction_s float8, horizon_age bigint, unroutable integer, open_doubts integer, alive integer,
               draining integer, late integer) LANGUAGE sql AS $$
    SELECT (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - a.xact_start)), 0)::float8 FROM pg_stat_activity a
             WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()),
           (SELECT coalesce(max(x.age), 0) FROM (
                SELECT age(a.backend_xmin) AS age FROM pg_stat_activity a
                 WHERE (a.datname = current_database() OR a.backend_type = 'walsender') AND a.pid <> pg_backend_pid()
                UNION ALL SELECT age(s.xmin) FROM pg_replication_slots s
                UNION ALL SELECT age(p.transaction) FROM pg_prepared_xacts p WHERE p.database = current_database()) x),
           (SELECT count(*)::integer FROM agentos.unroutable_lanes),
           (SELECT count(*)::integer FROM (SELECT 1 FROM agentos.doubts d WHERE d.answer IS NULL LIMIT 1000) d),
           w.alive, w.draining, w.late
      FROM (SELECT count(*) FILTER (WHERE k.state = 'alive' AND k.expires_at > t)::integer AS alive,
                   count(*) FILTER (WHERE k.state = 'draining' AND k.expires_at > t)::integer AS draining,
                   count(*) FILTER (WHERE k.expires_at <= t)::integer AS late
              FROM agentos.clock() AS t LEFT JOIN agentos.workers k
                ON k.role = 'worker' AND k.state IN ('alive', 'draining')) w
$$;
