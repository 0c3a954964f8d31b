-- Work that stands still, found by a duty of the coordinator: each task is told of once, and once more when it is over.

-- Attempts of living workers that began before p_since and have recorded nothing since: no checkpoint, tool call or event.
CREATE FUNCTION agentos.silent_attempts(p_since timestamptz)
RETURNS TABLE (task_id text, item_id bigint, attempt integer, worker text, host text, claimed_at timestamptz)
LANGUAGE sql AS $$
    SELECT i.task_id, h.item_id, h.attempt, w.label, w.host, h.claimed_at
      FROM agentos.lease_held h JOIN agentos.work_items i USING (item_id) JOIN agentos.workers w USING (worker_id)
     WHERE h.claimed_at < p_since AND agentos.is_alive(h.worker_id)
       AND NOT EXISTS (SELECT 1 FROM agentos.checkpoints c WHERE c.item_id = h.item_id AND c.created_at > p_since)
       AND NOT EXISTS (SELECT 1 FROM agentos.tool_ledger l WHERE l.item_id = h.item_id
                          AND greatest(l.begun_at, l.finished_at) > p_since)
       AND NOT EXISTS (SELECT 1 FROM agentos.events e WHERE e.task_id = i.task_id AND e.at > p_since
                          AND e.item_id = h.item_id AND e.worker_id = h.worker_id)
$$;

-- What stands still now, one item of each task and reason. unroutable: ready, and no living worker runs it; of each lane the
-- first 100, and p_most in all, so that a million of them cost no more. lane, rank, seq: where the lease row is.
CREATE FUNCTION agentos.standing_still(p_since timestamptz, p_most integer) RETURNS SETOF agentos.stuck_tasks
LANGUAGE sql AS $$
    SELECT DISTINCT ON (r.task_id) r.task_id, 'unroutable', r.item_id, 0, r.lane, r.rank, r.seq, agentos.clock(),
           NULL::timestamptz, json_build_object('queue', r.queue, 'kind', r.kind, 'version', r.version, 'served', r.served)
      FROM (SELECT u.queue, u.kind, u.version, u.served, r.*, w.task_id FROM agentos.unroutable_lanes u
             CROSS JOIN (VALUES (1), (-1)) s(sign)
             CROSS JOIN LATERAL (SELECT l.lane, l.rank, l.seq, l.item_id FROM agentos.lease_ready l
                                  WHERE l.lane = s.sign * u.lane ORDER BY l.rank, l.seq LIMIT 100) r
              JOIN agentos.work_items w ON w.item_id = r.item_id LIMIT p_most) r
     WHERE NOT EXISTS (SELECT 1 FROM agentos.task_heads h WHERE h.task_id = r.task_id AND (h.status IS NOT NULL OR h.paused))
    UNION ALL
    SELECT DISTINCT ON (a.task_id) a.task_id, 'silent', a.item_id, a.attempt, NULL, NULL, NULL, agentos.clock(),
           NULL::timestamptz, json_build_object('worker', a.worker, 'host', a.host, 'claimed_at', a.claimed_at)
      FROM agentos.silent_attempts(p_since) a
$$;

-- Whether what was found earlier still stands: by the very lease row, since a busy lane has more than are looked at.
CREATE FUNCTION agentos.still_stuck(p_found agentos.stuck_tasks, p_unroutable integer[]) RETURNS boolean LANGUAGE sql AS $$
    SELECT p_found.reason = 'unroutable' AND abs(p_found.lane) = ANY (p_unroutable)
       AND EXISTS (SELECT 1 FROM agentos.lease_ready r
                    WHERE r.lane = p_found.lane AND r.rank = p_found.rank AND r.seq = p_found.seq)
       AND NOT EXISTS (SELECT 1 FROM agentos.task_heads h
                        WHERE h.task_id = p_found.task_id AND (h.status IS NOT NULL OR h.paused))
$$;

-- One look, by one coordinator at a time. What stands still is noted, told of (an event of the task, a row of the result)
-- when a look p_after_s later still finds it, and once more when one does not. At most 1000 are told of at a time, others
-- when these are over. Died in the middle: nothing was told, and the next look does it.
CREATE FUNCTION agentos.look_for_stuck(p_silent_s float8, p_after_s float8)
RETURNS TABLE (change text, reason text, task_id text, item_id bigint, data text) LANGUAGE plpgsql AS $$
DECLARE
    v_most CONSTANT integer := 1000;
    v_now timestamptz := agentos.clock(); v_found agentos.stuck_tasks[]; v_lanes integer[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('agentos.look_for_stuck', 0)) THEN RETURN; END IF;
    v_found := ARRAY(SELECT f FROM agentos.standing_still(v_now - make_interval(secs => p_silent_s), v_most) f);
    v_lanes := ARRAY(SELECT u.lane FROM agentos.unroutable_lanes u);
    RETURN QUERY
    WITH gone AS (
        DELETE FROM agentos.stuck_tasks s WHERE NOT agentos.still_stuck(s, v_lanes) AND NOT EXISTS (
            SELECT 1 FROM unnest(v_found) f WHERE (f.task_id, f.reason) = (s.task_id, s.reason)) RETURNING s.*)
    SELECT 'unstuck', g.reason, g.task_id, g.item_id, agentos.tell_stuck('unstuck', g, v_now)
      FROM gone g WHERE g.told_at IS NOT NULL;
    INSERT INTO agentos.stuck_tasks
    SELECT (f).* FROM unnest(v_found) f
     LIMIT greatest(0, v_most - (SELECT count(*) FROM agentos.stuck_tasks)) ON CONFLICT DO NOTHING;
    RETURN QUERY
    WITH told AS (
        UPDATE agentos.stuck_tasks s SET told_at = v_now
         WHERE s.told_at IS NULL AND s.seen_at <= v_now - make_interval(secs => p_after_s) RETURNING s.*)
    SELECT 'stuck', t.reason, t.task_id, t.item_id, agentos.tell_stuck('stuck', t, v_now) FROM told t;
END $$;

CREATE FUNCTION agentos.tell_stuck(p_event text, p_task agentos.stuck_tasks, p_now timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE v_data json;
BEGIN
    v_data := json_build_object('reason', p_task.reason, 'for_s', round(extract(epoch FROM p_now - p_task.seen_at)),
                                'found', p_task.data);
    PERFORM agentos.note(p_task.task_id, p_task.item_id, p_event, NULL, NULL, v_data);
    RETURN v_data::text;
END $$;

-- What was told of and is not over, for metrics: every reason has a row.
CREATE FUNCTION agentos.stuck_counts() RETURNS TABLE (reason text, tasks integer) LANGUAGE sql AS $$
    SELECT r, (SELECT count(*)::integer FROM agentos.stuck_tasks s WHERE s.reason = r AND s.told_at IS NOT NULL)
      FROM unnest(ARRAY['silent', 'unroutable']) r
$$;
