-- Which lanes a worker claims from, and the order to stand still: limits and pauses are known to workers, not looked up by
-- claims, so that a claim in a database without any costs nothing for them.

-- Whoever changes what workers know calls this first. The lock is granted when the claims under way have committed, and
-- keeps out new ones, beats and registrations until this transaction ends (milliseconds); claims that were made with the
-- former knowledge come with the former epoch and are refused (`hold_epoch`, AG080), and their workers look again.
-- Died before the commit, nothing has changed; after it, no claim is made with the former knowledge.
CREATE FUNCTION agentos.stop_claims() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.enter_fence(), set_config('lock_timeout', '2s', true);
    LOCK TABLE agentos.workers IN EXCLUSIVE MODE;
    UPDATE agentos.workers SET claim_epoch = claim_epoch + 1, offering = false WHERE state = 'alive' AND role IN ('worker', 'solo');
END $$;

-- Limits that claims from a lane obey, with the key that each counts it under. Limits per tenant or key leave alone what
-- has none; what a runner plans for itself has no limits.
CREATE VIEW agentos.lane_limits AS
    SELECT l.lane, x.limit_id, x.measure, x.most, x.period_s,
           CASE x.per WHEN 'tenant' THEN l.fairness_key WHEN 'key' THEN l.limit_key ELSE '' END AS key
      FROM agentos.lanes l
      JOIN agentos.limits x ON CASE x.scope WHEN 'all' THEN true WHEN 'queue' THEN l.queue = x.name
                                            WHEN 'kind' THEN l.kind = x.name ELSE l.fairness_key = x.name END
     WHERE x.measure <> 'depth' AND l.queue <> '@runner'
       AND CASE x.per WHEN 'tenant' THEN l.fairness_key <> '' WHEN 'key' THEN l.limit_key <> '' ELSE true END;

-- What a worker of these queues, kinds and versions claims from now, paused queues left out. newest: the newest lane of
-- all; when there is a newer one it looks again. Missing lanes without keys are made.
CREATE FUNCTION agentos.served_lanes(p_queues text[], p_kinds text[], p_versions integer[], OUT newest integer,
                                     OUT lanes integer[], OUT tenants text[], OUT weights float8[], OUT limited boolean[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.lanes_of(p_queues, p_kinds, p_versions);
    SELECT (SELECT coalesce(max(n.lane), 0) FROM agentos.lanes n), coalesce(array_agg(l.lane), '{}'),
           coalesce(array_agg(l.fairness_key), '{}'), coalesce(array_agg(coalesce(w.weight, 1)::float8), '{}'),
           coalesce(array_agg(EXISTS (SELECT 1 FROM agentos.lane_limits x WHERE x.lane = l.lane)), '{}')
      INTO newest, lanes, tenants, weights, limited
      FROM agentos.lanes l
      LEFT JOIN agentos.fair_weights w USING (fairness_key)
     WHERE (l.queue, l.kind, l.version) IN (
               SELECT q, k.kind, k.version FROM unnest(p_queues) q CROSS JOIN unnest(p_kinds, p_versions) AS k(kind, version))
       AND NOT EXISTS (SELECT 1 FROM agentos.paused_queues p WHERE p.queue = l.queue);
END $$;

CREATE FUNCTION agentos.newest_lane() RETURNS integer LANGUAGE sql AS $$
    SELECT coalesce(max(l.lane), 0) FROM agentos.lanes l
$$;

-- The claim of a worker that lately found nothing: it also tells whether there is a lane the worker does not know, or an item
-- that was handed to it (`is_handed`): then it claims nothing, and a last row says so.
CREATE FUNCTION agentos.claim_idle(p_worker bigint, p_epoch integer, p_lanes integer[], p_limit integer, p_solo integer[],
                                   p_newest integer, p_above bigint DEFAULT NULL, p_known bigint[] DEFAULT NULL)
RETURNS SETOF agentos.claimed LANGUAGE plpgsql AS $$
DECLARE v_last agentos.claimed;
BEGIN
    IF p_above IS NOT NULL AND agentos.is_handed(p_worker, p_above, p_known) THEN
        v_last.handed := true;
        RETURN NEXT v_last;
        RETURN;
    END IF;
    IF agentos.newest_lane() > p_newest THEN PERFORM agentos.lanes_changed(p_worker); END IF;
    RETURN QUERY SELECT * FROM agentos.claim(p_worker, p_epoch, p_lanes, p_limit, p_solo);
END $$;

CREATE FUNCTION agentos.lanes_changed(p_worker bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what worker % may claim has changed since it looked', p_worker
        USING ERRCODE = 'AG080', HINT = 'nothing was claimed: raise the claim epoch (adopt), look again, then claim';
END $$;

-- True: it is paused now. False: it was.
CREATE FUNCTION agentos.pause_queue(p_queue text, p_by text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM agentos.paused_queues p WHERE p.queue = p_queue) THEN RETURN false; END IF;
    PERFORM agentos.stop_claims();
    INSERT INTO agentos.paused_queues (queue, paused_at, paused_by) VALUES (p_queue, agentos.clock(), p_by)
        ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;

-- True: it goes on. False: it was not paused.
CREATE FUNCTION agentos.resume_queue(p_queue text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM agentos.paused_queues p WHERE p.queue = p_queue) THEN RETURN false; END IF;
    PERFORM agentos.stop_claims();
    DELETE FROM agentos.paused_queues p WHERE p.queue = p_queue;
    RETURN FOUND;
END $$;

-- p_weight: 1 forgets it. Returns the former one.
CREATE FUNCTION agentos.set_weight(p_tenant text, p_weight real) RETURNS real LANGUAGE plpgsql AS $$
DECLARE v_former real := coalesce((SELECT w.weight FROM agentos.fair_weights w WHERE w.fairness_key = p_tenant), 1);
BEGIN
    IF v_former = p_weight THEN RETURN v_former; END IF;
    PERFORM agentos.stop_claims();
    DELETE FROM agentos.fair_weights w WHERE w.fairness_key = p_tenant;
    INSERT INTO agentos.fair_weights (fairness_key, weight) SELECT p_tenant, p_weight WHERE p_weight <> 1;
    RETURN v_former;
END $$;

-- Every queue that has a lane or is paused. ready and held count to p_most, so that a look at a million costs the same.
CREATE FUNCTION agentos.list_queues(p_most integer)
RETURNS TABLE (queue text, paused_at timestamptz, paused_by text, lanes integer, tenants integer, ready integer, held integer)
LANGUAGE sql AS $$
    SELECT q.queue, p.paused_at, p.paused_by, q.lanes, q.tenants, (
               SELECT count(*)::integer FROM (
                   SELECT 1 FROM agentos.lanes l CROSS JOIN (VALUES (1), (-1)) s(sign)
                    CROSS JOIN LATERAL (SELECT 1 FROM agentos.lease_ready r WHERE r.lane = s.sign * l.lane LIMIT p_most) r
                    WHERE l.queue = q.queue LIMIT p_most) x), (
               SELECT count(*)::integer FROM (SELECT 1 FROM agentos.lease_held h JOIN agentos.lanes l ON l.lane = abs(h.lane)
                                               WHERE l.queue = q.queue LIMIT p_most) x)
      FROM (SELECT l.queue, count(*)::integer AS lanes, count(DISTINCT nullif(l.fairness_key, ''))::integer AS tenants
              FROM agentos.lanes l WHERE l.queue <> '@runner' GROUP BY 1
            UNION ALL
            SELECT x.queue, 0, 0 FROM agentos.paused_queues x
             WHERE NOT EXISTS (SELECT 1 FROM agentos.lanes l WHERE l.queue = x.queue)) q
      LEFT JOIN agentos.paused_queues p USING (queue) ORDER BY 1
$$;

-- Queues that somebody may have forgotten.
CREATE FUNCTION agentos.flow_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'queue_paused', json_build_object('queue', p.queue, 'by', p.paused_by,
               'paused_s', extract(epoch FROM agentos.clock() - p.paused_at)::float8)
      FROM agentos.paused_queues p ORDER BY p.paused_at
$$;
