-- Reading. A status is derived from where the rows are; nothing is stored twice.

CREATE VIEW agentos.item_places AS
    SELECT item_id, 'ready' AS place, attempt, failures::integer, crashes::integer, NULL::bigint AS worker_id,
           NULL::timestamptz AS at FROM agentos.lease_ready
    UNION ALL SELECT item_id, 'held', attempt, failures, crashes, worker_id, claimed_at FROM agentos.lease_held
    UNION ALL SELECT item_id, 'scheduled', attempt, failures, crashes, NULL, run_at FROM agentos.scheduled
    UNION ALL SELECT item_id, 'waiting', attempt, failures, crashes, NULL, since FROM agentos.waiting
    UNION ALL SELECT item_id, 'outcome', attempt, failures, crashes, worker_id, finished_at FROM agentos.outcomes;

-- Must be empty, always: items that are nowhere, or in more than one place, and rows of items that do not exist. But for
-- outcomes: those of a retired task go after its items, with the partition of their day.
CREATE VIEW agentos.misplaced_items AS
    SELECT item_id, w.task_id, count(p.place)::integer AS places, array_agg(p.place) AS found
      FROM agentos.work_items w FULL JOIN agentos.item_places p USING (item_id)
     GROUP BY item_id, w.task_id HAVING count(p.place) <> 1 OR w.task_id IS NULL
       AND NOT (min(p.place) = 'outcome' AND max(p.at) < agentos.clock() - interval '1 day');

-- created: nothing has started; paused: nothing of it runs, until it is resumed; waiting: everything open is parked;
-- running: the rest.
CREATE FUNCTION agentos.open_status(p_task text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN EXISTS (SELECT 1 FROM agentos.work_items w JOIN agentos.lease_held h USING (item_id) WHERE w.task_id = p_task)
            THEN 'running'
        WHEN EXISTS (SELECT 1 FROM agentos.task_heads t WHERE t.task_id = p_task AND t.paused) THEN 'paused'
        WHEN EXISTS (SELECT 1 FROM agentos.waiting k WHERE k.task_id = p_task AND k.reason <> 'dependencies') THEN 'waiting'
        WHEN EXISTS (SELECT 1 FROM agentos.work_items w JOIN agentos.outcomes o USING (item_id) WHERE w.task_id = p_task)
          OR EXISTS (SELECT 1 FROM agentos.work_items w JOIN agentos.scheduled s USING (item_id)
                      WHERE w.task_id = p_task AND s.attempt > 0)
          OR EXISTS (SELECT 1 FROM agentos.events e WHERE e.task_id = p_task AND e.event IN ('lease_reclaimed', 'attempt_failed', 'retried'))
            THEN 'running'
        ELSE 'created' END
$$;

CREATE VIEW agentos.tasks AS
    SELECT r.task_id, r.kind, r.title, r.queue, s.status, coalesce(h.reason, o.error ->> 'message') AS reason,
           coalesce(r.payload, i.payload) AS payload, o.result, r.created_at,
           coalesce(h.finished_at, o.finished_at) AS finished_at, coalesce(h.cancel_requested, false) AS cancel_requested,
           h.last_seq, h.open_items
      FROM agentos.task_records r
      LEFT JOIN agentos.task_heads h USING (task_id)
      LEFT JOIN agentos.work_items i ON i.item_id = r.single
      LEFT JOIN agentos.outcomes o ON o.item_id = r.single AND h.open_items IS NULL
     CROSS JOIN LATERAL (SELECT coalesce(h.status, CASE o.status
           WHEN 'completed' THEN 'completed' WHEN 'cancelled' THEN CASE WHEN h.expired THEN 'failed' ELSE 'cancelled' END
           WHEN 'failed' THEN 'failed' WHEN 'quarantined' THEN 'failed' END,
           agentos.open_status(r.task_id)) AS status) s;

-- One line for whoever waits for a task: its status and what it is waiting for.
CREATE FUNCTION agentos.task_progress(p_task text)
RETURNS TABLE (status text, reason text, result text, single boolean, open integer, done integer, held integer,
               next_run_in_s float8, foreign_kinds text[], purged_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.require_task(p_task);
    RETURN QUERY
    SELECT t.status, t.reason, t.result::text, r.single IS NOT NULL AND t.open_items IS NULL, c.open, c.done, c.held,
           extract(epoch FROM c.next_run - agentos.clock())::float8, c.kinds,
           (SELECT h.purged_at FROM agentos.task_heads h WHERE h.task_id = p_task)
      FROM agentos.tasks t JOIN agentos.task_records r USING (task_id)
     CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE o.item_id IS NULL)::integer AS open, count(o.item_id)::integer AS done,
                count(h.item_id)::integer AS held, min(s.run_at) AS next_run,
                array_agg(DISTINCT l.kind) FILTER (WHERE o.item_id IS NULL) AS kinds
           FROM agentos.work_items w JOIN agentos.lanes l USING (lane)
           LEFT JOIN agentos.outcomes o ON o.item_id = w.item_id
           LEFT JOIN agentos.lease_held h ON h.item_id = w.item_id
           LEFT JOIN agentos.scheduled s ON s.item_id = w.item_id
          WHERE w.task_id = p_task) c
     WHERE t.task_id = p_task;
END $$;

CREATE VIEW agentos.task_items AS
    SELECT w.task_id, w.item_id, w.seq, w.key, l.kind, l.version, l.queue, p.place, p.attempt, p.failures, p.crashes, p.worker_id, p.at,
           o.status, o.result, o.error, o.claimed_at, w.payload, w.max_attempts
      FROM agentos.work_items w JOIN agentos.lanes l USING (lane)
      LEFT JOIN agentos.item_places p USING (item_id)
      LEFT JOIN agentos.outcomes o USING (item_id);

CREATE VIEW agentos.idempotency_keys AS
    SELECT ledger_key AS key, 'tool' AS source, task_id, tool_name AS name, state, result AS value, begun_at AS created_at,
           expires_at FROM agentos.tool_ledger
    UNION ALL
    SELECT cache_key, 'llm', task_id, operation_type, state, output, created_at, expires_at FROM agentos.llm_cache;

-- Whether a worker of these `serves` claims items of a kind in a version. One that says no versions runs 0 only.
CREATE FUNCTION agentos.serves(p_serves json, p_queue text, p_kind text, p_version integer) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_queue IN (SELECT json_array_elements_text(p_serves -> 'queues'))
       AND p_kind IN (SELECT json_array_elements_text(p_serves -> 'kinds'))
       AND p_version IN (SELECT v::integer FROM json_array_elements_text(
               coalesce(p_serves -> 'versions' -> p_kind, '[0]')) v)
$$;

-- Not terminal, not claimable by anyone alive: ready lanes that no living worker serves, and the oldest item of each.
-- served: the versions of the kind that living workers of the queue run; empty: nobody runs it at all. Reads one row a
-- lane, so that a metric may ask often.
CREATE VIEW agentos.unroutable_lanes AS
    SELECT l.lane, l.queue, l.kind, l.version, o.task_id, o.item_id, o.created_at, ARRAY(
               SELECT DISTINCT v::integer FROM agentos.workers w
                CROSS JOIN LATERAL json_array_elements_text(coalesce(w.serves -> 'versions' -> l.kind, '[0]')) v
                WHERE w.state = 'alive' AND w.expires_at > agentos.clock()
                  AND agentos.serves(w.serves, l.queue, l.kind, v::integer) ORDER BY 1) AS served
      FROM agentos.lanes l
     CROSS JOIN LATERAL (
         SELECT i.task_id, i.item_id, t.created_at
           FROM (VALUES (l.lane), (-l.lane)) AS s(lane)
          CROSS JOIN LATERAL (SELECT r.item_id, r.rank, r.seq FROM agentos.lease_ready r WHERE r.lane = s.lane
                               ORDER BY r.rank, r.seq LIMIT 1) r
           JOIN agentos.work_items i USING (item_id) JOIN agentos.task_records t USING (task_id)
          ORDER BY r.rank, r.seq LIMIT 1) o
     WHERE NOT EXISTS (SELECT 1 FROM agentos.workers w WHERE w.state = 'alive' AND w.expires_at > agentos.clock()
                          AND agentos.serves(w.serves, l.queue, l.kind, l.version));

-- Which of these tasks have an item that waits in such a lane: one line a task.
CREATE FUNCTION agentos.unserved(p_tasks text[])
RETURNS TABLE (task_id text, queue text, kind text, version integer, served integer[]) LANGUAGE sql AS $$
    WITH lanes AS MATERIALIZED (SELECT * FROM agentos.unroutable_lanes u)
    SELECT DISTINCT ON (w.task_id) w.task_id, u.queue, u.kind, u.version, u.served
      FROM lanes u JOIN agentos.work_items w ON w.lane = u.lane AND w.task_id = ANY (p_tasks)
      JOIN agentos.item_places p ON p.item_id = w.item_id AND p.place = 'ready' ORDER BY w.task_id, w.seq
$$;
