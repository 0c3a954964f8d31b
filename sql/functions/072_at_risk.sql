-- What may be lost soon: leases in these lanes whose worker is gone or half-way to being declared dead, and how many workers
-- there are to run them. After a start of the server nobody is late before he could beat. A worker that asks makes processes ready while the TTL runs out.
CREATE FUNCTION agentos.leases_at_risk(p_lanes integer[], p_limit integer) RETURNS TABLE (leases integer, workers integer)
LANGUAGE sql AS $$
    WITH known AS MATERIALIZED (
        SELECT w.worker_id, w.role, greatest(w.beat_at, agentos.serving_since()) < t - w.ttl / 2
               OR w.worker_id IN (SELECT g.worker_id FROM agentos.gone_workers() g) AS late FROM agentos.workers w CROSS JOIN agentos.clock() AS t
         WHERE w.state IN ('alive', 'draining')),
    risked AS (
        SELECT 1 FROM known k JOIN agentos.lease_held h USING (worker_id)
         WHERE k.late AND abs(h.lane) = ANY (p_lanes) LIMIT p_limit)
    SELECT (SELECT count(*) FROM risked)::integer,
           (SELECT count(*) FROM known k WHERE k.role = 'worker' AND NOT k.late)::integer
$$;
