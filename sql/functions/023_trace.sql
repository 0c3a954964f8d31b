-- What a task carries of the trace in which it was submitted. A row of its own, so that who does not trace pays nothing:
-- no column is read by claims, and no row is written.

-- In the statement that makes the tasks: with them, or not at all.
CREATE FUNCTION agentos.set_trace(p_tasks text[], p_traceparent text, p_tracestate text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.traces (task_id, traceparent, tracestate)
    SELECT t, p_traceparent, p_tracestate FROM unnest(p_tasks) t ON CONFLICT DO NOTHING
$$;

-- What an attempt goes on from; and the attempt before it, if its lease was taken back: its worker cannot tell of it.
CREATE FUNCTION agentos.trace_of(p_task text, p_item bigint, p_attempt integer)
RETURNS TABLE (created_at timestamptz, traceparent text, tracestate text, lost_claimed_at timestamptz, lost_at timestamptz,
               lost_worker bigint) LANGUAGE sql AS $$
    SELECT r.created_at, t.traceparent, t.tracestate, (l.data ->> 'claimed_at')::timestamptz, l.at, l.worker_id
      FROM agentos.task_records r
      LEFT JOIN agentos.traces t USING (task_id)
      LEFT JOIN LATERAL (
          SELECT e.data, e.at, e.worker_id FROM agentos.events e
           WHERE e.task_id = p_task AND e.item_id = p_item AND e.attempt = p_attempt - 1 AND e.event = 'lease_reclaimed'
           ORDER BY e.xact DESC, e.seq DESC LIMIT 1) l ON p_attempt > 1
     WHERE r.task_id = p_task
$$;
