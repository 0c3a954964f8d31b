-- Which ready rows a claim takes, and how it keeps away from dead ones.
--
-- While a snapshot of somebody pins the vacuum horizon, every row ever claimed stays as a dead index entry at the head
-- of its lane, and a claim that starts at the head walks over all of them: 0.2 us each, seconds after half an hour. So a
-- session remembers, for lanes where a walk was long, a *floor*: the (rank, seq) under which it lately found nothing to
-- take. Claims start there. A floor is a guess, held to nothing: what comes under it (a retry keeps its old rank, priority
-- lowers it, a long transaction commits late) is found by a full look, which every floor has its time for. It costs the
-- database nothing, is lost with its session, and a lane without long walks has none.

-- due_at: when the next claim looks at the whole lane again; null: it always does.
CREATE TYPE agentos.lane_floor AS (lane integer, rank bigint, seq bigint, due_at timestamptz);

-- Index entries that scans of lease_ready were given in this transaction, dead and locked ones included.
CREATE FUNCTION agentos.ready_walked() RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(pg_stat_get_xact_tuples_returned('agentos.lease_ready_pkey'::regclass), 0)
$$;

-- Where a claim begins in each of p_lanes, in that order. A due time far ahead means that the clock was set back.
CREATE FUNCTION agentos.floors_of(p_lanes integer[], p_now timestamptz) RETURNS agentos.lane_floor[] LANGUAGE plpgsql AS $$
DECLARE
    v_lowest CONSTANT bigint := -9223372036854775808;
    v_known text := current_setting('agentos.floors', true);
BEGIN
    IF coalesce(v_known, '') IN ('', '{}') THEN
        RETURN ARRAY(SELECT (l, v_lowest, v_lowest, NULL)::agentos.lane_floor FROM unnest(p_lanes) AS l);
    END IF;
    RETURN ARRAY(
        SELECT (l.lane, coalesce(f.rank, v_lowest), coalesce(f.seq, v_lowest), k.due_at)::agentos.lane_floor
          FROM unnest(p_lanes) WITH ORDINALITY AS l(lane, n)
          LEFT JOIN unnest(v_known::agentos.lane_floor[]) k ON k.lane = l.lane
          LEFT JOIN LATERAL (SELECT k.rank, k.seq WHERE k.due_at BETWEEN p_now AND p_now + interval '1 min') f ON true
         ORDER BY l.n);
END $$;

-- Locks up to p_limit ready rows of p_lanes, in the order given, oldest rank first. Returns where they are, which holds
-- while they are locked: a lease_ready row is never updated. The pick is MATERIALIZED (otherwise LIMIT may run more than
-- once and over-claim). To be called under the planner settings of `claim`.
CREATE FUNCTION agentos.pick_ready(p_lanes integer[], p_limit integer) RETURNS tid[] LANGUAGE plpgsql AS $$
DECLARE
    v_long CONSTANT integer := 2000 + 50 * cardinality(p_lanes);  -- floors of many lanes cost more than short walks in each
    v_now timestamptz; v_walked bigint := agentos.ready_walked(); v_picked tid[];
BEGIN
    IF coalesce(current_setting('agentos.floors', true), '') NOT IN ('', '{}') THEN
        RETURN agentos.pick_above_floors(p_lanes, p_limit, v_long);
    END IF;
    v_now := agentos.clock();
    WITH picked AS MATERIALIZED (
        SELECT r.row_at FROM unnest(p_lanes) AS l
         CROSS JOIN LATERAL (SELECT r.ctid AS row_at FROM agentos.lease_ready r
                              WHERE r.lane = l ORDER BY r.rank, r.seq LIMIT p_limit FOR UPDATE SKIP LOCKED) r
         LIMIT p_limit)
    SELECT coalesce(array_agg(row_at), '{}') INTO v_picked FROM picked;
    IF agentos.ready_walked() - v_walked - cardinality(v_picked) > v_long THEN
        PERFORM agentos.learn_floors(agentos.floors_of(p_lanes, v_now), v_picked, cardinality(v_picked) >= p_limit, true, v_now);
    END IF;
    RETURN v_picked;
END $$;

-- The same in a session that has a floor: a claim without one is two statements shorter.
CREATE FUNCTION agentos.pick_above_floors(p_lanes integer[], p_limit integer, p_long integer) RETURNS tid[]
LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := agentos.clock(); v_walked bigint := agentos.ready_walked();
    v_floors agentos.lane_floor[] := agentos.floors_of(p_lanes, v_now);
    v_picked tid[];
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT r.row_at FROM unnest(v_floors) AS f
         CROSS JOIN LATERAL (SELECT r.ctid AS row_at FROM agentos.lease_ready r
                              WHERE r.lane = f.lane AND (r.rank, r.seq) >= (f.rank, f.seq)
                              ORDER BY r.rank, r.seq LIMIT p_limit FOR UPDATE SKIP LOCKED) r
         LIMIT p_limit)
    SELECT coalesce(array_agg(row_at), '{}') INTO v_picked FROM picked;
    v_walked := agentos.ready_walked() - v_walked - cardinality(v_picked);
    IF v_walked > p_long OR EXISTS (SELECT 1 FROM unnest(v_floors) f
                                     WHERE f.due_at IS NOT NULL AND f.rank = -9223372036854775808) THEN
        PERFORM agentos.learn_floors(v_floors, v_picked, cardinality(v_picked) >= p_limit, v_walked > p_long, v_now);
    END IF;
    RETURN v_picked;
END $$;

-- After a long walk, or a full look that was due. Lanes that this claim came to: all, or when it had enough (p_full) those
-- up to the last it took from. Half a second is left for those who took their rank and have not committed. The next full
-- look is due after twenty times what this one took, so that looks cost a twentieth of the time; a lane where it was
-- short needs no floor any more.
CREATE FUNCTION agentos.learn_floors(p_floors agentos.lane_floor[], p_picked tid[], p_full boolean, p_long boolean,
                                     p_now timestamptz) RETURNS void LANGUAGE sql AS $$
    WITH lane AS (SELECT f.*, f.rank = -9223372036854775808 AS looked FROM unnest(p_floors) WITH ORDINALITY
                      AS f(lane, rank, seq, due_at, n)),
    mine AS MATERIALIZED (SELECT r.lane, r.rank, r.seq FROM agentos.lease_ready r WHERE r.ctid = ANY (p_picked)),
    low AS (SELECT DISTINCT ON (m.lane) m.* FROM mine m ORDER BY m.lane, m.rank, m.seq),
    came AS (SELECT l.*, w.rank AS low_rank, w.seq AS low_seq,
                    NOT p_full OR l.n <= (SELECT max(x.n) FROM lane x JOIN low USING (lane)) AS came
               FROM lane l LEFT JOIN low w USING (lane)),
    recent AS (SELECT agentos.rank_of(p_now - interval '0.5 s', 0) AS rank, agentos.clock() AS at),
    learnt AS (
        SELECT c.lane, least(c.low_rank, t.rank) AS rank,
               CASE WHEN c.low_rank < t.rank THEN c.low_seq ELSE -9223372036854775808 END AS seq,
               CASE WHEN c.looked THEN t.at + least(greatest(20 * (t.at - p_now), interval '1 s'), interval '50 s')
                    ELSE c.due_at END AS due_at
          FROM came c CROSS JOIN recent t WHERE c.came AND p_long
        UNION ALL
        SELECT c.lane, c.rank, c.seq, c.due_at FROM came c
         WHERE c.due_at IS NOT NULL AND NOT (c.came AND (p_long OR c.looked))),
    kept AS (SELECT * FROM unnest(nullif(current_setting('agentos.floors', true), '')::agentos.lane_floor[]) k
              WHERE k.lane <> ALL (SELECT f.lane FROM unnest(p_floors) f))
    SELECT set_config('agentos.floors', coalesce(array_agg((x.lane, x.rank, x.seq, x.due_at)::agentos.lane_floor), '{}')::text,
                      false) FROM (SELECT * FROM learnt UNION ALL SELECT * FROM kept) x
$$;
