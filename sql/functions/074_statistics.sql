-- Statistics: the coordinator counts at intervals, everybody else reads what it counted. Nothing on the hot path pays.
--
-- Exact: every place of at most 1,000 pages (8 MB; some 100,000 lease rows), every ready lane of at most 10,000 items, and
-- what ended. Estimated, from 1,000 random pages: the rest. So a count costs the same at 10,000,000 ready rows as at 100,000.

-- Counts once, unless another did within half of p_interval_s or is at it. One commit: who dies before it counted
-- nothing, and no end is counted twice. Returns how many lanes (by queue, kind, version), null: it was another's turn.
CREATE FUNCTION agentos.take_statistics(p_interval_s float8) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_now timestamptz := agentos.clock(); v_last agentos.statistics_runs; v_until timestamptz; v_lanes integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('agentos.take_statistics', 0)) THEN RETURN NULL; END IF;
    SELECT * INTO v_last FROM agentos.statistics_runs r ORDER BY r.at DESC LIMIT 1;
    IF v_last.at > v_now - make_interval(secs => p_interval_s / 2) AND v_last.at <= v_now THEN RETURN NULL; END IF;
    -- Whoever writes an outcome commits within 5 s (enter_fence): after that none comes between what was counted.
    -- A minute at once, and an hour at most is caught up: what ended while nobody counted for longer is in no total.
    v_until := greatest(coalesce(v_last.counted_until, v_now - interval '5 s'), v_now - interval '1 hour');
    v_until := agentos.count_ends(v_until, least(v_now - interval '5 s',
                                                 v_until + greatest(interval '1 min', make_interval(secs => 6 * p_interval_s))));
    v_lanes := agentos.count_places(1000, 10000);
    DELETE FROM agentos.statistics_runs r WHERE r.at IN (
        SELECT o.at FROM agentos.statistics_runs o WHERE o.at < v_now - interval '1 day' ORDER BY o.at LIMIT 1000);
    DELETE FROM agentos.throughput t WHERE (t.minute, t.queue, t.kind, t.version) IN (
        SELECT o.minute, o.queue, o.kind, o.version FROM agentos.throughput o
         WHERE o.minute < v_now - interval '7 days' ORDER BY o.minute LIMIT 1000);
    INSERT INTO agentos.statistics_runs (at, counted_until, ready_seq)
    SELECT v_now, v_until, s.last_value FROM agentos.ready_seqs s ON CONFLICT DO NOTHING;
    RETURN v_lanes;
END $$;

-- What ended after p_from and until p_to, which it returns. By the BRIN index, however many ended before.
CREATE FUNCTION agentos.count_ends(p_from timestamptz, p_to timestamptz) RETURNS timestamptz LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    IF p_to <= p_from THEN RETURN p_from; END IF;
    WITH ended AS MATERIALIZED (
        SELECT date_trunc('minute', o.finished_at) AS minute, w.lane, o.status, count(*) AS n
          FROM agentos.outcomes o JOIN agentos.work_items w USING (item_id)
         WHERE NOT o.kept AND o.finished_at > p_from AND o.finished_at <= p_to GROUP BY 1, 2, 3),
    by_minute AS (
        SELECT e.minute, l.queue, l.kind, l.version,
               coalesce(sum(e.n) FILTER (WHERE e.status = 'completed'), 0) AS completed,
               coalesce(sum(e.n) FILTER (WHERE e.status = 'failed'), 0) AS failed,
               coalesce(sum(e.n) FILTER (WHERE e.status = 'quarantined'), 0) AS quarantined,
               coalesce(sum(e.n) FILTER (WHERE e.status = 'cancelled'), 0) AS cancelled,
               coalesce(sum(e.n) FILTER (WHERE e.status = 'skipped'), 0) AS skipped
          FROM ended e JOIN agentos.lanes l USING (lane) GROUP BY 1, 2, 3, 4),
    kept AS (
        INSERT INTO agentos.throughput AS t SELECT * FROM by_minute
            ON CONFLICT (minute, queue, kind, version) DO UPDATE SET completed = t.completed + excluded.completed,
               failed = t.failed + excluded.failed, quarantined = t.quarantined + excluded.quarantined,
               cancelled = t.cancelled + excluded.cancelled, skipped = t.skipped + excluded.skipped)
    INSERT INTO agentos.lane_statistics AS s (queue, kind, version, completed, failed, quarantined, cancelled, skipped)
    SELECT b.queue, b.kind, b.version, sum(b.completed), sum(b.failed), sum(b.quarantined), sum(b.cancelled), sum(b.skipped)
      FROM by_minute b GROUP BY 1, 2, 3
        ON CONFLICT (queue, kind, version) DO UPDATE SET completed = s.completed + excluded.completed,
           failed = s.failed + excluded.failed, quarantined = s.quarantined + excluded.quarantined,
           cancelled = s.cancelled + excluded.cancelled, skipped = s.skipped + excluded.skipped;
    RETURN p_to;
END $$;

-- How many percent of a table's pages are p_pages of them; 100: it has no more.
CREATE FUNCTION agentos.sample_percent(p_table regclass, p_pages integer) RETURNS real LANGUAGE sql STABLE AS $$
    SELECT (100.0 * p_pages / greatest(p_pages, pg_relation_size(p_table) / current_setting('block_size')::bigint))::real
$$;

-- The rows of the parking places and of the held by lane, from p_pages of their pages. A lane's solo twin counts with it.
CREATE FUNCTION agentos.sampled_places(p_pages integer)
RETURNS TABLE (lane integer, place text, n bigint, exact boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_held real := agentos.sample_percent('agentos.lease_held', p_pages);
    v_scheduled real := agentos.sample_percent('agentos.scheduled', p_pages);
    v_waiting real := agentos.sample_percent('agentos.waiting', p_pages);
BEGIN
    RETURN QUERY
    SELECT abs(h.lane), 'held', (count(*) * 100 / v_held)::bigint, v_held = 100
      FROM agentos.lease_held h TABLESAMPLE SYSTEM (v_held) GROUP BY 1
    UNION ALL
    SELECT abs(s.lane), 'scheduled', (count(*) * 100 / v_scheduled)::bigint, v_scheduled = 100
      FROM agentos.scheduled s TABLESAMPLE SYSTEM (v_scheduled) GROUP BY 1
    UNION ALL
    SELECT abs(k.lane), 'waiting', (count(*) * 100 / v_waiting)::bigint, v_waiting = 100
      FROM agentos.waiting k TABLESAMPLE SYSTEM (v_waiting) GROUP BY 1;
END $$;

-- The ready rows by lane. In a table that is too large for that, each lane is counted up to p_cap rows (with many lanes
-- fewer each, half a million in all); beyond, the sample tells how many, and it is at least that many.
CREATE FUNCTION agentos.ready_depths(p_pages integer, p_cap integer) RETURNS TABLE (lane integer, n bigint, exact boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_percent real := agentos.sample_percent('agentos.lease_ready', p_pages);
    v_cap integer := least(p_cap, greatest(100, 500000 / greatest(1, (SELECT count(*) FROM agentos.lanes))));
BEGIN
    RETURN QUERY
    WITH sampled AS MATERIALIZED (
        SELECT abs(r.lane) AS lane, (count(*) * 100 / v_percent)::bigint AS n
          FROM agentos.lease_ready r TABLESAMPLE SYSTEM (v_percent) GROUP BY 1)
    SELECT s.lane, s.n, true FROM sampled s WHERE v_percent = 100
    UNION ALL
    SELECT l.lane, CASE WHEN c.n <= v_cap THEN c.n ELSE greatest(v_cap, coalesce(s.n, 0)) END, c.n <= v_cap
      FROM agentos.lanes l LEFT JOIN sampled s USING (lane)
     CROSS JOIN LATERAL (SELECT count(*) AS n FROM (
            SELECT 1 FROM agentos.lease_ready r WHERE r.lane IN (l.lane, -l.lane) LIMIT v_cap + 1) x) c
     WHERE v_percent < 100 AND c.n > 0;
END $$;

-- Since when the next item of each ready lane has been ready: it is younger than each of three bounds, so the latest counts.
-- Its task was made; its row got a number that the sequence had not come to at an earlier count; its lanes were empty then.
CREATE FUNCTION agentos.oldest_ready() RETURNS TABLE (queue text, kind text, version integer, at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    SELECT l.queue, l.kind, l.version, min(greatest(t.created_at, m.at, e.sampled_at))
      FROM agentos.lanes l CROSS JOIN (VALUES (1), (-1)) v(s)
     CROSS JOIN LATERAL (SELECT r.item_id, r.seq FROM agentos.lease_ready r WHERE r.lane = v.s * l.lane
                          ORDER BY r.rank, r.seq LIMIT 1) r
      LEFT JOIN agentos.work_items w ON w.item_id = r.item_id
      LEFT JOIN agentos.task_records t ON t.task_id = w.task_id
      LEFT JOIN agentos.lane_statistics e ON e.queue = l.queue AND e.kind = l.kind AND e.version = l.version AND e.ready = 0
      LEFT JOIN LATERAL (SELECT u.at FROM agentos.statistics_runs u WHERE u.ready_seq < r.seq
                          ORDER BY u.ready_seq DESC LIMIT 1) m ON true
     GROUP BY 1, 2, 3;
END $$;

-- Writes what is where, now. Returns how many rows.
CREATE FUNCTION agentos.count_places(p_pages integer, p_cap integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_now timestamptz := agentos.clock(); v_rows integer;
BEGIN
    WITH found AS (
        SELECT d.lane, 'ready' AS place, d.n, d.exact FROM agentos.ready_depths(p_pages, p_cap) d
        UNION ALL
        SELECT * FROM agentos.sampled_places(p_pages)),
    counted AS (
        SELECT l.queue, l.kind, l.version, coalesce(sum(f.n) FILTER (WHERE f.place = 'ready'), 0) AS ready,
               coalesce(bool_and(f.exact) FILTER (WHERE f.place = 'ready'), true) AS ready_exact,
               coalesce(sum(f.n) FILTER (WHERE f.place = 'held'), 0) AS held,
               coalesce(sum(f.n) FILTER (WHERE f.place = 'scheduled'), 0) AS scheduled,
               coalesce(sum(f.n) FILTER (WHERE f.place = 'waiting'), 0) AS waiting,
               coalesce(bool_and(f.exact) FILTER (WHERE f.place <> 'ready'), true) AS parked_exact
          FROM agentos.lanes l LEFT JOIN found f USING (lane) GROUP BY 1, 2, 3)
    INSERT INTO agentos.lane_statistics AS s (queue, kind, version, ready, ready_exact, held, scheduled, waiting, parked_exact,
                                              oldest_ready_at, sampled_at)
    SELECT c.queue, c.kind, c.version, c.ready, c.ready_exact, c.held, c.scheduled, c.waiting, c.parked_exact, o.at, v_now
      FROM counted c LEFT JOIN agentos.oldest_ready() o USING (queue, kind, version)
        ON CONFLICT (queue, kind, version) DO UPDATE SET ready = excluded.ready, ready_exact = excluded.ready_exact,
           held = excluded.held, scheduled = excluded.scheduled, waiting = excluded.waiting,
           parked_exact = excluded.parked_exact, oldest_ready_at = excluded.oldest_ready_at, sampled_at = excluded.sampled_at;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END $$;

-- What metrics and people read: one row for each queue, kind and version. The ends of the last five whole minutes that are
-- counted; age_s: how old the counts of places are.
CREATE FUNCTION agentos.statistics()
RETURNS TABLE (queue text, kind text, version integer, ready bigint, ready_exact boolean, held bigint, scheduled bigint,
               waiting bigint, parked_exact boolean, oldest_ready_s float8, completed bigint, failed bigint,
               quarantined bigint, cancelled bigint, skipped bigint, completed_5m bigint, failed_5m bigint,
               sampled_at timestamptz, age_s float8) LANGUAGE sql STABLE AS $$
    WITH span AS (SELECT date_trunc('minute', max(r.counted_until)) AS until FROM agentos.statistics_runs r),
    recent AS (
        SELECT t.queue, t.kind, t.version, sum(t.completed)::bigint AS completed,
               sum(t.failed + t.quarantined)::bigint AS failed
          FROM span JOIN agentos.throughput t ON t.minute >= span.until - interval '5 min' AND t.minute < span.until
         GROUP BY 1, 2, 3)
    SELECT s.queue, s.kind, s.version, s.ready, s.ready_exact, s.held, s.scheduled, s.waiting, s.parked_exact,
           CASE WHEN s.oldest_ready_at IS NOT NULL THEN greatest(0, extract(epoch FROM agentos.clock() - s.oldest_ready_at)) END::float8,
           s.completed, s.failed, s.quarantined, s.cancelled, s.skipped, coalesce(r.completed, 0), coalesce(r.failed, 0), s.sampled_at,
           extract(epoch FROM agentos.clock() - s.sampled_at)::float8
      FROM agentos.lane_statistics s LEFT JOIN recent r USING (queue, kind, version)
     WHERE s.sampled_at IS NOT NULL ORDER BY 1, 2, 3
$$;

-- Items of a queue that are ready or held: one number for an autoscaler, which divides it by what a worker runs at once.
-- Old counts are refused, so that nobody scales to nothing because no coordinator runs.
CREATE FUNCTION agentos.backlog(p_queue text, p_max_age_s float8 DEFAULT 120) RETURNS float8 LANGUAGE plpgsql STABLE AS $$
DECLARE v_at timestamptz := (SELECT max(r.at) FROM agentos.statistics_runs r);
BEGIN
    IF v_at IS NULL OR v_at < agentos.clock() - make_interval(secs => p_max_age_s) THEN
        RAISE EXCEPTION 'nobody has counted since %', coalesce(v_at::text, 'the schema was made')
            USING ERRCODE = 'AG060', HINT = 'start a coordinator: agentos-coordinator';
    END IF;
    RETURN (SELECT coalesce(sum(s.ready + s.held), 0)::float8 FROM agentos.lane_statistics s WHERE s.queue = p_queue);
END $$;

-- Whole days after today for which each table has partitions. Under 3 is an alarm: without one completions fail.
CREATE FUNCTION agentos.partitions_ahead() RETURNS TABLE (parent text, days_ahead integer) LANGUAGE sql STABLE AS $$
    SELECT p, (SELECT count(*)::integer FROM generate_series(1, 7) d WHERE to_regclass(format('agentos.%s_%s', p,
                   to_char(agentos.clock() AT TIME ZONE 'UTC' + make_interval(days => d), 'YYYYMMDD'))) IS NOT NULL)
      FROM unnest(ARRAY['outcomes', 'events']) p
$$;
