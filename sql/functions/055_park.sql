-- held -> waiting -> ready: an item that waits for a person, a signal, a time or its children costs a row, not a slot.

-- Parks an item the caller holds. p_wake_at: when it is ready again by itself; null: only `unpark` wakes it. The caller's
-- transaction records, in the same commit, what the item waits for. Raises LeaseLost, TaskCancelled.
CREATE FUNCTION agentos.park(p_worker bigint, p_item bigint, p_token uuid, p_reason text, p_wake_at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_task text := agentos.fence_live(p_item, p_worker, p_token); v_ended agentos.ended[];
BEGIN
    v_ended := agentos.end_leases(p_worker, ARRAY[p_item], ARRAY[p_token]);
    IF cardinality(v_ended) = 0 THEN PERFORM agentos.lease_lost(p_item, p_worker); END IF;
    INSERT INTO agentos.waiting (item_id, task_id, reason, pending, since, wake_at, lane, rank, attempt, failures, crashes)
    SELECT e.item_id, v_task, p_reason, 0, agentos.clock(), p_wake_at, e.lane, e.rank, e.attempt, e.failures, e.crashes
      FROM unnest(v_ended) e;
    PERFORM agentos.count_wall(v_ended);
END $$;

-- Those of p_items that are parked for p_reason are ready again. Returns them: who comes second wakes nothing.
CREATE FUNCTION agentos.unpark(p_items bigint[], p_reason text) RETURNS bigint[] LANGUAGE sql AS $$
    WITH woken AS (DELETE FROM agentos.waiting WHERE item_id = ANY (p_items) AND reason = p_reason RETURNING *),
    ready AS (
        INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
        SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, attempt, failures, crashes FROM woken)
    SELECT coalesce(array_agg(item_id), '{}') FROM woken
$$;
