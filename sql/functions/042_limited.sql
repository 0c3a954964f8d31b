-- ready -> held for lanes that have limits: the only claims that count.
--
-- A limit holds exactly: whoever claims under it locks its gate first and counts in later statements, and what is counted
-- is the leases themselves. A worker killed while it holds one keeps its place until `reclaim` has taken the lease away,
-- in whatever transaction that is.

-- How many more each lane that has limits may have claimed from it now. Concurrency: grants whose lease is held count.
-- Rate: grants of the last period do. OFFSET 0: each lease is looked up by its key; as a join all of them may be read.
CREATE VIEW agentos.lane_room AS
    SELECT x.lane, min(x.most - CASE x.measure
               WHEN 'rate' THEN (SELECT count(*) FROM agentos.limit_grants g WHERE g.limit_id = x.limit_id AND g.key = x.key
                                    AND g.granted_at > (SELECT agentos.clock()) - make_interval(secs => x.period_s))
               ELSE (SELECT count(*) FROM agentos.limit_grants g WHERE g.limit_id = x.limit_id AND g.key = x.key
                        AND EXISTS (SELECT 1 FROM agentos.lease_held h WHERE h.item_id = g.item_id AND h.token = g.token
                                    OFFSET 0)) END)::integer AS room
      FROM agentos.lane_limits x GROUP BY x.lane;

-- Of p_lanes, in their order, up to p_most that have something ready and, as far as one can tell without the gates, room.
CREATE FUNCTION agentos.lanes_with_room(p_lanes integer[], p_most integer) RETURNS integer[] LANGUAGE sql AS $$
    SELECT ARRAY(SELECT a.lane FROM unnest(p_lanes) WITH ORDINALITY AS a(lane, n)
                  CROSS JOIN LATERAL (SELECT 1 FROM agentos.lease_ready r WHERE r.lane = a.lane LIMIT 1) r
                  WHERE coalesce((SELECT m.room FROM agentos.lane_room m WHERE m.lane = abs(a.lane)), 1) > 0 ORDER BY a.n LIMIT p_most)
$$;

-- Locks the gates of these lanes in their order, making those that are missing, and forgets the grants behind them that
-- do not count any more: nobody else writes those, and none is ever updated, so where they are holds. OFFSET 0: as above.
CREATE FUNCTION agentos.lock_gates(p_lanes integer[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_gates bigint;
BEGIN
    INSERT INTO agentos.limit_gates (limit_id, key)
    SELECT DISTINCT x.limit_id, x.key FROM agentos.lane_limits x
     WHERE x.lane IN (SELECT abs(l) FROM unnest(p_lanes) l)
       AND NOT EXISTS (SELECT 1 FROM agentos.limit_gates g WHERE g.limit_id = x.limit_id AND g.key = x.key OFFSET 0)
     ORDER BY 1, 2 ON CONFLICT DO NOTHING;
    WITH behind AS MATERIALIZED (
        SELECT DISTINCT x.limit_id, x.key FROM agentos.lane_limits x
         WHERE x.lane IN (SELECT abs(l) FROM unnest(p_lanes) l) ORDER BY 1, 2)
    SELECT count(*) INTO v_gates FROM behind b CROSS JOIN LATERAL (
           SELECT 1 FROM agentos.limit_gates g WHERE g.limit_id = b.limit_id AND g.key = b.key FOR UPDATE) g;
    DELETE FROM agentos.limit_grants WHERE ctid = ANY (ARRAY(
        SELECT d.row_at FROM (
            SELECT DISTINCT x.limit_id, x.key, x.measure, (SELECT agentos.clock()) - make_interval(secs => x.period_s) AS horizon
              FROM agentos.lane_limits x WHERE x.lane IN (SELECT abs(l) FROM unnest(p_lanes) l)) x
         CROSS JOIN LATERAL (
            SELECT g.ctid AS row_at FROM agentos.limit_grants g
             WHERE g.limit_id = x.limit_id AND g.key = x.key
               AND CASE x.measure WHEN 'rate' THEN g.granted_at <= x.horizon ELSE NOT EXISTS (
                       SELECT 1 FROM agentos.lease_held h WHERE h.item_id = g.item_id AND h.token = g.token OFFSET 0) END
            OFFSET 0) d));
END $$;

-- Takes up to p_limit items from p_lanes, which have limits, in the order given. They are started. A rate is charged here,
-- and not given back by whatever becomes of the claim. p_lease_s as in `claim_rows_at`. p_task: only items of that task, and
-- all its lanes are looked at: what is ready in one of them may be others'. The planner settings keep one plan, as those of
-- `claim` do: gates, grants and leases by key. A hash or a merge would read all grants of everybody.
CREATE FUNCTION agentos.take_limited(p_worker bigint, p_lanes integer[], p_limit integer, p_lease_s float8, p_task text)
RETURNS SETOF agentos.claimed LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE v_lanes integer[]; v_lane integer; v_left integer := p_limit; v_room integer; v_items agentos.claimed[];
BEGIN
    IF p_limit <= 0 THEN RETURN; END IF;
    v_lanes := CASE WHEN p_task IS NULL THEN agentos.lanes_with_room(p_lanes, 16) ELSE p_lanes END;
    IF cardinality(v_lanes) = 0 THEN RETURN; END IF;
    PERFORM agentos.lock_gates(v_lanes);
    FOREACH v_lane IN ARRAY v_lanes LOOP
        v_room := least(v_left, (SELECT m.room FROM agentos.lane_room m WHERE m.lane = abs(v_lane)));
        CONTINUE WHEN v_room <= 0;
        v_items := ARRAY(SELECT c FROM agentos.claim_rows_at(p_worker, p_lease_s, CASE
                             WHEN p_task IS NULL THEN agentos.pick_ready(ARRAY[v_lane], v_room)
                             ELSE agentos.pick_of_task(p_task, ARRAY[v_lane], v_room) END) c);
        PERFORM agentos.grant_limited(v_lane, v_items);
        RETURN QUERY SELECT c.* FROM unnest(v_items) c;
        v_left := v_left - cardinality(v_items);
    END LOOP;
END $$;

-- What was claimed from a lane whose gates are locked counts from now.
CREATE FUNCTION agentos.grant_limited(p_lane integer, p_items agentos.claimed[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.limit_grants (limit_id, key, granted_at, item_id, token)
    SELECT x.limit_id, x.key, timestamptz 'epoch' + c.claimed_us * interval '1 microsecond', c.item_id, c.token
      FROM unnest(p_items) c JOIN agentos.lane_limits x ON x.lane = abs(p_lane)
$$;

-- `claim` for lanes that have limits. Died before the commit, nothing is held and nothing is charged; after it, the items
-- are held and count, until they end or `reclaim` takes them.
CREATE FUNCTION agentos.claim_limited(p_worker bigint, p_epoch integer, p_lanes integer[], p_limit integer)
RETURNS SETOF agentos.claimed LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.hold_epoch(p_worker, p_epoch);
    RETURN QUERY SELECT * FROM agentos.take_limited(p_worker, p_lanes, p_limit, NULL, NULL);
END $$;

-- Sets or changes a limit. True: it is another now. What is held already counts at once; above the limit nothing more is
-- claimed until enough has ended. p_declared: by an app; then a limit that an operator set stays as it is.
CREATE FUNCTION agentos.set_limit(p_scope text, p_name text, p_measure text, p_per text, p_most integer, p_period_s float8,
                                  p_declared boolean) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_limit integer;
BEGIN
    IF EXISTS (SELECT 1 FROM agentos.limits x
                WHERE x.scope = p_scope AND x.name = p_name AND x.measure = p_measure AND x.per = p_per
                  AND (p_declared AND NOT x.declared OR x.most = p_most AND x.period_s IS NOT DISTINCT FROM p_period_s
                                                        AND x.declared = p_declared)) THEN RETURN false; END IF;
    PERFORM agentos.stop_claims();
    INSERT INTO agentos.limits AS x (scope, name, measure, per, most, period_s, declared)
    VALUES (p_scope, p_name, p_measure, p_per, p_most, p_period_s, p_declared)
    ON CONFLICT (scope, name, measure, per) DO UPDATE
       SET most = excluded.most, period_s = excluded.period_s, declared = excluded.declared
     WHERE NOT (excluded.declared AND NOT x.declared) RETURNING limit_id INTO v_limit;
    IF v_limit IS NULL THEN RETURN false; END IF;
    DELETE FROM agentos.limit_grants g WHERE g.limit_id = v_limit AND p_measure = 'concurrency';
    INSERT INTO agentos.limit_grants (limit_id, key, granted_at, item_id, token)
    SELECT x.limit_id, x.key, h.claimed_at, h.item_id, h.token
      FROM agentos.lease_held h JOIN agentos.lane_limits x ON x.lane = abs(h.lane)
     WHERE x.limit_id = v_limit AND NOT EXISTS (SELECT 1 FROM agentos.limit_grants g WHERE g.limit_id = v_limit
                                                   AND g.key = x.key AND g.item_id = h.item_id AND g.token = h.token);
    RETURN true;
END $$;

-- False: there was none.
CREATE FUNCTION agentos.clear_limit(p_scope text, p_name text, p_measure text, p_per text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE v_limit integer;
BEGIN
    PERFORM agentos.stop_claims();
    DELETE FROM agentos.limits x WHERE x.scope = p_scope AND x.name = p_name AND x.measure = p_measure AND x.per = p_per
      RETURNING limit_id INTO v_limit;
    DELETE FROM agentos.limit_grants g WHERE g.limit_id = v_limit;
    DELETE FROM agentos.limit_gates g WHERE g.limit_id = v_limit;
    RETURN v_limit IS NOT NULL;
END $$;

-- used: of the key that uses most now; keys: how many use it.
CREATE FUNCTION agentos.list_limits()
RETURNS TABLE (scope text, name text, measure text, per text, most integer, period_s float8, declared boolean, used integer,
               keys integer) LANGUAGE sql AS $$
    SELECT x.scope, x.name, x.measure, x.per, x.most, x.period_s, x.declared, coalesce(max(u.n), 0)::integer,
           count(u.key)::integer
      FROM agentos.limits x LEFT JOIN LATERAL (
           SELECT g.key, count(*) AS n FROM agentos.limit_grants g
            WHERE g.limit_id = x.limit_id AND CASE x.measure
                      WHEN 'rate' THEN g.granted_at > agentos.clock() - make_interval(secs => x.period_s)
                      ELSE EXISTS (SELECT 1 FROM agentos.lease_held h WHERE h.item_id = g.item_id AND h.token = g.token) END
            GROUP BY g.key) u ON true
     GROUP BY x.limit_id ORDER BY x.scope, x.name, x.measure, x.per
$$;
