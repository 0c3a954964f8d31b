-- What handlers tell while they run, and reading a task's events in order, as they come.

-- Many items' events in one commit. p_events: [{"item_id", "event", "data"}, ...] in the order they were told. An item the
-- caller no longer holds tells nothing: whoever holds it now does. One that this very attempt has parked still may, since
-- nobody has claimed it since. Returns how many were written.
CREATE FUNCTION agentos.tell(p_worker bigint, p_items bigint[], p_tokens uuid[], p_attempts integer[], p_events text)
RETURNS integer LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE v_mine bigint[]; v_told integer;
BEGIN
    PERFORM agentos.enter_fence();
    v_mine := ARRAY(
        SELECT h.item_id FROM agentos.lease_held h
         WHERE h.item_id = ANY (p_items) AND h.item_id = p_items[array_position(p_tokens, h.token)]
           AND h.worker_id + 0 = p_worker ORDER BY h.item_id FOR NO KEY UPDATE);
    v_mine := v_mine || ARRAY(
        SELECT k.item_id FROM unnest(p_items, p_attempts) AS u(item_id, attempt)
          JOIN agentos.waiting k ON k.item_id = u.item_id AND k.attempt = u.attempt
         WHERE k.item_id = ANY (p_items) FOR NO KEY UPDATE OF k);
    WITH told AS (
        INSERT INTO agentos.events (task_id, item_id, at, event, attempt, worker_id, data)
        SELECT w.task_id, w.item_id, agentos.clock(), e.told ->> 'event', u.attempt, p_worker, e.told -> 'data'
          FROM json_array_elements(p_events::json) WITH ORDINALITY AS e(told, n)
          JOIN unnest(p_items, p_attempts) AS u(item_id, attempt) ON u.item_id = (e.told ->> 'item_id')::bigint
          JOIN agentos.work_items w ON w.item_id = u.item_id
         WHERE w.item_id = ANY (v_mine) ORDER BY e.n RETURNING 1)
    SELECT count(*) FROM told INTO v_told;
    RETURN v_told;
END $$;

-- A task's events after a cursor, in the order of (xact, seq). Only those before which nothing can appear any more:
-- their transaction is older than all that still write. A transaction that writes for more than 10 s (no fenced one may)
-- does not hold the others' events back; what it wrote may then come late, behind a reader's cursor.
CREATE FUNCTION agentos.stream(p_task text, p_xact text, p_seq bigint, p_limit integer)
RETURNS TABLE (xact text, seq bigint, at timestamptz, event text, item_id bigint, key text, attempt integer,
               worker_id bigint, data text) LANGUAGE sql AS $$
    WITH page AS (
        SELECT e.* FROM agentos.events e WHERE e.task_id = p_task AND (e.xact, e.seq) > (p_xact::xid8, p_seq)
         ORDER BY e.xact, e.seq LIMIT p_limit),
    known AS (
        SELECT p.*, bool_and(p.xact < pg_snapshot_xmin(pg_current_snapshot()) OR p.at < agentos.clock() - interval '10 s')
                    OVER (ORDER BY p.xact, p.seq) AS settled FROM page p)
    SELECT k.xact::text, k.seq, k.at, k.event, k.item_id, w.key, k.attempt, k.worker_id, k.data::text
      FROM known k LEFT JOIN agentos.work_items w USING (item_id) WHERE k.settled ORDER BY k.xact, k.seq
$$;
