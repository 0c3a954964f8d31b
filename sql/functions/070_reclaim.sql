-- held -> ready | quarantined, scheduled -> ready: what the coordinator does. All of it is safe with any number of them.

-- Since when beats could arrive: nobody is declared dead for an outage of the database. After a start of the server every
-- worker has a whole TTL to say that it is alive. Not by agentos.clock(): a server knows its start by its own clock.
CREATE FUNCTION agentos.serving_since() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT pg_postmaster_start_time()
$$;

-- Separate statements: lock and mark the dead, then lock their leases, then move them. One joined statement takes
-- leases from a worker that has just beaten. Looks at *all* leases without a living worker, not only fresh deaths.
-- Crashes are charged to items that were started, or whose claim was begun (`agentos.turn`); from the first on, the item goes to its lane's solo twin (-lane).
CREATE FUNCTION agentos.reclaim(p_limit integer, p_max_crashes integer)
RETURNS TABLE (item_id bigint, task_id text, worker_id bigint, crashes integer, quarantined boolean) LANGUAGE plpgsql AS $$
DECLARE v_dead bigint[]; v_items bigint[]; v_ended agentos.ended[];
BEGIN
    PERFORM agentos.enter_fence();
    v_dead := ARRAY(SELECT w.worker_id FROM agentos.workers w
                     WHERE w.state IN ('alive', 'draining')
                       AND greatest(w.expires_at, agentos.serving_since() + w.ttl) <= agentos.clock() FOR UPDATE SKIP LOCKED);
    UPDATE agentos.workers w SET state = 'dead' WHERE w.worker_id = ANY (v_dead);
    DELETE FROM agentos.offers o WHERE o.worker_id + 0 = ANY (v_dead);
    v_items := ARRAY(
        SELECT h.item_id FROM agentos.lease_held h
         WHERE h.expires_at <= agentos.clock()
            OR NOT EXISTS (SELECT 1 FROM agentos.workers w WHERE w.worker_id = h.worker_id AND w.state IN ('alive', 'draining'))
         ORDER BY h.item_id LIMIT p_limit FOR UPDATE OF h SKIP LOCKED);
    IF cardinality(v_items) = 0 THEN RETURN; END IF;
    WITH gone AS (DELETE FROM agentos.lease_held h WHERE h.item_id = ANY (v_items) RETURNING h.*)
    SELECT array_agg((g.item_id, g.token, g.worker_id, g.lane, g.rank, g.attempt, g.failures,
                      agentos.crashes_with(g), g.claimed_at)::agentos.ended) INTO v_ended FROM gone g;
    PERFORM agentos.requeue(ARRAY(SELECT e FROM unnest(v_ended) e WHERE e.crashes < p_max_crashes));
    PERFORM agentos.count_wall(ARRAY(SELECT e FROM unnest(v_ended) e WHERE e.crashes < p_max_crashes));
    PERFORM agentos.quarantine(ARRAY(SELECT e FROM unnest(v_ended) e WHERE e.crashes >= p_max_crashes));
    PERFORM agentos.note(w.task_id, e.item_id, 'lease_reclaimed', e.attempt, e.worker_id,
                         json_build_object('crashes', e.crashes, 'claimed_at', e.claimed_at))
       FROM unnest(v_ended) e JOIN agentos.work_items w USING (item_id);
    RETURN QUERY SELECT e.item_id, w.task_id, e.worker_id, e.crashes::integer, e.crashes >= p_max_crashes
      FROM unnest(v_ended) e JOIN agentos.work_items w USING (item_id);
END $$;

-- The crashes of an item whose process just died. They count while it makes no headway: one that recorded a checkpoint or
-- a finished call under this very lease is not what kills its workers, and counts as crashed once. So an agent that
-- runs for days on machines that come and go is not quarantined, and a poison item is, after p_max_crashes attempts.
-- One that records something new each time and dies all the same loses this grace after 50 deaths.
CREATE FUNCTION agentos.crashes_with(p_lease agentos.lease_held) RETURNS smallint LANGUAGE sql AS $$
    SELECT CASE WHEN NOT p_lease.started AND NOT EXISTS (
                         SELECT 1 FROM agentos.begun_claims b
                          WHERE b.worker_id = p_lease.worker_id AND b.claim_no = p_lease.claim_no) THEN p_lease.crashes
                WHEN p_lease.crashes > 0 AND (
                         EXISTS (SELECT 1 FROM agentos.checkpoints c
                                  WHERE c.item_id = p_lease.item_id AND c.attempt = p_lease.attempt)
                      OR EXISTS (SELECT 1 FROM agentos.tool_ledger l WHERE l.item_id = p_lease.item_id
                                  AND l.token = p_lease.token AND l.state = 'finished'))
                 AND (SELECT count(*) FROM agentos.work_items w JOIN agentos.events e USING (task_id, item_id)
                       WHERE w.item_id = p_lease.item_id AND e.event = 'lease_reclaimed') < 50 THEN 1::smallint
                ELSE p_lease.crashes + 1::smallint END
$$;

CREATE FUNCTION agentos.requeue(p_ended agentos.ended[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT CASE WHEN e.crashes > 0 THEN -abs(e.lane) ELSE e.lane END, e.rank, nextval('agentos.ready_seqs'), e.item_id,
           e.attempt, e.failures, e.crashes FROM unnest(p_ended) e
$$;

CREATE FUNCTION agentos.quarantine(p_ended agentos.ended[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_ended) = 0 THEN RETURN; END IF;
    INSERT INTO agentos.outcomes (item_id, token, worker_id, attempt, failures, crashes, status, claimed_at, finished_at, error)
    SELECT e.item_id, e.token, e.worker_id, e.attempt, e.failures, e.crashes, 'quarantined', e.claimed_at, agentos.clock(),
           json_build_object('type', 'Quarantined', 'message',
                             format('its worker process died %s times while it ran', e.crashes))
      FROM unnest(p_ended) e;
    PERFORM agentos.settle(ARRAY(SELECT e.item_id FROM unnest(p_ended) e), false);
END $$;

-- Leases without a living worker that a sweep had to skip, with whoever locks them: [{item_id, pid, query}].
CREATE FUNCTION agentos.blocked_leases() RETURNS TABLE (item_id bigint, worker_id bigint, pid integer, query text) LANGUAGE sql AS $$
    SELECT h.item_id, h.worker_id, a.pid, a.query FROM agentos.lease_held h
      LEFT JOIN LATERAL (
          SELECT s.pid, left(s.query, 200) AS query FROM pg_locks k JOIN pg_stat_activity s USING (pid)
           WHERE k.relation = 'agentos.lease_held'::regclass AND k.mode = 'RowShareLock' AND s.pid <> pg_backend_pid()
             AND s.state = 'idle in transaction' ORDER BY s.xact_start LIMIT 1) a ON true
     WHERE h.expires_at <= agentos.clock()
        OR NOT EXISTS (SELECT 1 FROM agentos.workers w WHERE w.worker_id = h.worker_id AND w.state IN ('alive', 'draining'))
$$;

-- The clock is asked in a sub-select: as a bare volatile
-- function it could not bound the index, and every sweep would walk over all that is scheduled.
CREATE FUNCTION agentos.promote_scheduled(p_limit integer) RETURNS text[] LANGUAGE sql AS $$
    WITH due AS MATERIALIZED (
        SELECT s.item_id FROM agentos.scheduled s WHERE s.run_at <= (SELECT agentos.clock())
         ORDER BY s.run_at LIMIT p_limit FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM agentos.scheduled s WHERE s.item_id = ANY (ARRAY(SELECT d.item_id FROM due d)) RETURNING *),
    ready AS (
        INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
        SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, attempt, failures, crashes FROM gone)
    SELECT coalesce(array_agg(DISTINCT l.queue), '{}') FROM gone g JOIN agentos.lanes l ON l.lane = abs(g.lane)
$$;

-- Items whose time has come: the scheduled, and the parked. Returns the queues that got some.
CREATE FUNCTION agentos.promote(p_limit integer) RETURNS text[] LANGUAGE sql AS $$
    SELECT ARRAY(SELECT unnest(agentos.promote_scheduled(p_limit)) UNION SELECT unnest(agentos.promote_waiting(p_limit)))
$$;

-- The net under `settle`: tasks whose counters and rows disagree, and dependants whose needs are met, are put right.
-- A crash cannot make one (settle commits with the outcome); a restored or hand-edited database can.
CREATE FUNCTION agentos.repair(p_limit integer) RETURNS integer LANGUAGE sql AS $$
    SELECT agentos.repair_some(NULL, NULL, p_limit)
$$;

-- The same for the next p_rows heads after p_task and parked items after p_item: to look at all of 50,000 open tasks at once
-- took 2.9 s. Returns where the next slice begins; at the end that is the beginning.
CREATE FUNCTION agentos.repair_slice(p_task text, p_item bigint, p_rows integer, OUT next_task text, OUT next_item bigint,
                                     OUT repaired integer) LANGUAGE plpgsql AS $$
DECLARE v_tasks text[]; v_items bigint[];
BEGIN
    v_tasks := ARRAY(SELECT t.task_id FROM agentos.task_heads t WHERE t.task_id > p_task ORDER BY t.task_id LIMIT p_rows);
    v_items := ARRAY(SELECT k.item_id FROM agentos.waiting k WHERE k.item_id > p_item ORDER BY k.item_id LIMIT p_rows);
    next_task := CASE WHEN cardinality(v_tasks) = p_rows THEN v_tasks[p_rows] ELSE '' END;
    next_item := CASE WHEN cardinality(v_items) = p_rows THEN v_items[p_rows] ELSE -9223372036854775808 END;
    repaired := agentos.repair_some(v_tasks, v_items, p_rows);
END $$;

-- Of these tasks and parked items (null: of all). The plan is made for what is given, never for both cases.
CREATE FUNCTION agentos.repair_some(p_tasks text[], p_items bigint[], p_limit integer) RETURNS integer
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE v_tasks text[]; v_ready bigint[];
BEGIN
    v_tasks := ARRAY(SELECT t.task_id FROM agentos.task_heads t
                      WHERE (p_tasks IS NULL OR t.task_id = ANY (p_tasks)) AND t.status IS NULL AND t.open_items IS NOT NULL
                        AND EXISTS (SELECT 1 FROM agentos.work_items w WHERE w.task_id = t.task_id)
                        AND t.open_items <> agentos.count_open(t.task_id)
                      ORDER BY t.task_id LIMIT p_limit FOR UPDATE SKIP LOCKED);
    UPDATE agentos.task_heads t SET open_items = agentos.count_open(t.task_id) WHERE t.task_id = ANY (v_tasks);
    PERFORM agentos.finish_tasks(v_tasks);
    v_ready := ARRAY(SELECT k.item_id FROM agentos.waiting k
                      WHERE (p_items IS NULL OR k.item_id = ANY (p_items)) AND k.reason = 'dependencies' AND NOT EXISTS (
                        SELECT 1 FROM agentos.item_deps d WHERE d.item_id = k.item_id AND NOT EXISTS (
                            SELECT 1 FROM agentos.outcomes o WHERE o.item_id = d.needs AND o.status = 'completed'))
                      ORDER BY k.item_id LIMIT p_limit FOR UPDATE SKIP LOCKED);
    WITH woken AS (DELETE FROM agentos.waiting k WHERE k.item_id = ANY (v_ready) RETURNING *)
    INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, attempt, failures, crashes FROM woken;
    RETURN cardinality(v_tasks) + cardinality(v_ready) + agentos.end_cancelled(p_tasks, p_limit);
END $$;

-- Workers that are gone for a day: one row per process start would otherwise grow for ever. Returns how many.
CREATE FUNCTION agentos.forget_workers(p_age_s float8) RETURNS integer LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM agentos.workers w
         WHERE w.state IN ('stopped', 'dead') AND w.beat_at < agentos.clock() - make_interval(secs => p_age_s)
           AND NOT EXISTS (SELECT 1 FROM agentos.lease_held h WHERE h.worker_id = w.worker_id) RETURNING worker_id),
    begun AS (DELETE FROM agentos.begun_claims b USING gone g WHERE b.worker_id = g.worker_id),
    offered AS (DELETE FROM agentos.offers o USING gone g WHERE o.worker_id + 0 = g.worker_id)
    SELECT count(*)::integer FROM gone
$$;

-- Cancelled tasks whose running items were given back instead of ended (a drain, a crash, a failure): nobody has to
-- claim them again for the task to end.
CREATE FUNCTION agentos.end_cancelled(p_tasks text[], p_limit integer) RETURNS integer
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE v record; v_ended integer := 0;
BEGIN
    FOR v IN SELECT t.task_id, t.reason FROM agentos.task_heads t
              WHERE (p_tasks IS NULL OR t.task_id = ANY (p_tasks)) AND t.cancel_requested AND t.status IS NULL
                AND agentos.count_open(t.task_id) > 0
                AND NOT EXISTS (SELECT 1 FROM agentos.work_items w JOIN agentos.lease_held h USING (item_id)
                                 WHERE w.task_id = t.task_id)
              ORDER BY t.task_id LIMIT p_limit FOR UPDATE OF t SKIP LOCKED LOOP
        PERFORM agentos.cancel_task(v.task_id, v.reason);
        v_ended := v_ended + 1;
    END LOOP;
    RETURN v_ended;
END $$;

CREATE FUNCTION agentos.count_open(p_task text) RETURNS integer LANGUAGE sql AS $$
    SELECT count(*)::integer FROM agentos.work_items w WHERE w.task_id = p_task
       AND NOT EXISTS (SELECT 1 FROM agentos.outcomes o WHERE o.item_id = w.item_id)
$$;

-- Leadership saves work, nothing else. Returns the term, or null while another holds it.
CREATE FUNCTION agentos.lead(p_name text, p_holder bigint, p_ttl_s float8) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO agentos.leaders AS l (name, holder, term, expires_at)
    VALUES (p_name, p_holder, 1, agentos.clock() + make_interval(secs => p_ttl_s))
    ON CONFLICT (name) DO UPDATE SET holder = p_holder, term = l.term + (l.holder <> p_holder)::integer,
           expires_at = agentos.clock() + make_interval(secs => p_ttl_s)
     WHERE l.holder = p_holder OR l.expires_at <= agentos.clock()
    RETURNING term
$$;

CREATE FUNCTION agentos.resign(p_name text, p_holder bigint) RETURNS void LANGUAGE sql AS $$
    UPDATE agentos.leaders SET expires_at = agentos.clock() WHERE name = p_name AND holder = p_holder
$$;
