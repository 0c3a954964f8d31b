-- What the coordinator asks beside its transitions.

-- A reclaim that waits for these leases instead of skipping them: asked for what sweeps skipped twice. The wait has an
-- end (SQLSTATE 55P03, `DatabaseBusy`); whoever still locks them is then named by blocked_leases().
CREATE FUNCTION agentos.reclaim_blocked(p_items bigint[], p_wait_s float8, p_limit integer, p_max_crashes integer)
RETURNS TABLE (item_id bigint, task_id text, worker_id bigint, crashes integer, quarantined boolean) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.enter_fence(), set_config('lock_timeout', ceil(p_wait_s * 1000)::bigint || 'ms', true);
    PERFORM 1 FROM agentos.lease_held h WHERE h.item_id = ANY (p_items) ORDER BY h.item_id FOR UPDATE;
    RETURN QUERY SELECT * FROM agentos.reclaim(p_limit, p_max_crashes);
END $$;

-- Seconds until the next scheduled or parked item, or deadline, is due (negative: it is late); null: there is none.
CREATE FUNCTION agentos.next_due_s() RETURNS float8 LANGUAGE sql AS $$
    SELECT extract(epoch FROM least((SELECT min(s.run_at) FROM agentos.scheduled s),
                                    (SELECT min(k.wake_at) FROM agentos.waiting k),
                                    (SELECT min(d.deadline_at) FROM agentos.deadlines d)) - agentos.clock())::float8
$$;

CREATE FUNCTION agentos.queues_of(p_items bigint[]) RETURNS text[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(DISTINCT l.queue), '{}') FROM agentos.work_items w JOIN agentos.lanes l USING (lane)
     WHERE w.item_id = ANY (p_items)
$$;

-- The newest migration that was applied: what a probe compares with the one its process knows.
CREATE FUNCTION agentos.schema_version() RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(m.version), 0) FROM agentos.migrations m
$$;
