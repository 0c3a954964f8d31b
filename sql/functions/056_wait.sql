-- Waits are recorded calls: a row of tool_ledger ('@sleep', '@signal', '@approval', '@gather'), begun while it waits and
-- finished, with what the handler gets, by whoever ends it, in the transaction that makes the item ready again.
-- A process that dies before such a commit has changed nothing; after it, nothing is missing.

-- Locks a task's head until the transaction ends, made if the task has none: whoever waits and whoever ends the wait both
-- do it first, and read in statements of their own, so neither can miss the other.
CREATE FUNCTION agentos.lock_head(p_task text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = p_task FOR UPDATE;
    IF FOUND THEN RETURN; END IF;
    INSERT INTO agentos.task_heads (task_id) VALUES (p_task) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = p_task FOR UPDATE;
END $$;

CREATE TYPE agentos.wait_reply AS (verdict text, result text, wake_in_s float8);

-- Waits. Verdicts:
--   finished  it is over (signal there, time over, children done): the result, nothing was parked
--   parked    the item is a row now and the lease has ended: the handler must be left
--   waiting   recorded, and the item goes on: other branches of the handler work (p_park false), another wait of the item
--             was over just now, or the time is so near (p_near_s) that a new claim would cost more
-- p_wake_at or p_timeout_s: when it ends by itself; counted from the first time it was asked.
-- A pure sleep needs no head: only the clock can end it.
CREATE FUNCTION agentos.wait(p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_tool text, p_ordinal integer,
                             p_nth integer, p_arguments text, p_name text, p_wake_at timestamptz, p_timeout_s float8,
                             p_near_s float8, p_park boolean) RETURNS agentos.wait_reply LANGUAGE plpgsql AS $$
DECLARE v agentos.waits; v_result json; v_left_s float8;
BEGIN
    PERFORM agentos.fence_live(p_item, p_worker, p_token);
    IF p_tool = '@gather' THEN PERFORM agentos.lock_gather(p_key, p_task, p_arguments::json);
    ELSIF p_tool <> '@sleep' OR EXISTS (SELECT 1 FROM agentos.waits w WHERE w.item_id = p_item AND w.ledger_key <> p_key) THEN
        PERFORM agentos.lock_head(p_task);
    END IF;
    UPDATE agentos.tool_ledger l SET replays = l.replays + 1 WHERE l.ledger_key = p_key AND l.state = 'finished'
      RETURNING l.result INTO v_result;
    IF FOUND THEN RETURN ('finished', v_result, NULL)::agentos.wait_reply; END IF;
    v := agentos.open_wait(p_key, p_task, p_item, p_worker, p_token, p_tool, p_ordinal, p_nth, p_arguments, p_name,
                           coalesce(p_wake_at, agentos.clock() + make_interval(secs => p_timeout_s)));
    v_result := agentos.wait_result(v);
    IF v_result IS NOT NULL THEN
        PERFORM agentos.finish_wait(p_key, v_result);
        RETURN ('finished', v_result, NULL)::agentos.wait_reply;
    END IF;
    IF p_tool = '@gather' AND agentos.doomed_children(p_arguments::json) IS NOT NULL THEN
        RETURN ('waiting', NULL, 0)::agentos.wait_reply;  -- one failed since the heads were locked: ask again
    END IF;
    v_left_s := extract(epoch FROM v.wake_at - agentos.clock());
    IF p_park AND (v_left_s IS NULL OR v_left_s > p_near_s) AND NOT agentos.end_waits(p_item) THEN
        PERFORM agentos.park(p_worker, p_item, p_token, v.reason,
                             (SELECT min(w.wake_at) FROM agentos.waits w WHERE w.item_id = p_item));
        RETURN ('parked', NULL, v_left_s)::agentos.wait_reply;
    END IF;
    RETURN ('waiting', NULL, v_left_s)::agentos.wait_reply;
END $$;

-- The wait's own row: the one that is there, else recorded now, together with its row of the ledger.
CREATE FUNCTION agentos.open_wait(p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_tool text,
                                  p_ordinal integer, p_nth integer, p_arguments text, p_name text, p_wake_at timestamptz)
RETURNS agentos.waits LANGUAGE plpgsql AS $$
DECLARE v agentos.waits;
BEGIN
    SELECT * INTO v FROM agentos.waits w WHERE w.ledger_key = p_key;
    IF FOUND THEN RETURN v; END IF;
    INSERT INTO agentos.tool_ledger (ledger_key, task_id, item_id, tool_name, ordinal, nth, arguments, state, on_doubt,
        idempotency_key, produces, worker_id, token, call_token, begun_at, expires_at)
    VALUES (p_key, p_task, p_item, p_tool, p_ordinal, p_nth, p_arguments::json, 'begun', 'retry', p_key, '[]', p_worker,
            p_token, gen_random_uuid(), agentos.clock(), 'infinity') ON CONFLICT DO NOTHING;
    INSERT INTO agentos.waits (ledger_key, item_id, task_id, reason, name, since, wake_at)
    VALUES (p_key, p_item, p_task, CASE p_tool WHEN '@gather' THEN 'children' ELSE substr(p_tool, 2) END, p_name,
            agentos.clock(), p_wake_at) RETURNING * INTO v;
    RETURN v;
END $$;

-- What ends this wait now; null: nothing yet. An answer ends its wait by itself.
CREATE FUNCTION agentos.wait_result(p_wait agentos.waits) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_result json;
BEGIN
    IF p_wait.reason = 'signal' THEN
        v_result := agentos.take_signal(p_wait.task_id, p_wait.name, p_wait.ledger_key);
    END IF;
    IF p_wait.reason = 'children' THEN RETURN agentos.children_result(p_wait.ledger_key); END IF;
    IF v_result IS NULL AND p_wait.wake_at <= agentos.clock() THEN
        v_result := agentos.time_over(p_wait.reason);
    END IF;
    RETURN v_result;
END $$;

CREATE FUNCTION agentos.time_over(p_reason text) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_reason = 'sleep' THEN '{"slept":true}' ELSE '{"timed_out":true}' END::json
$$;

CREATE FUNCTION agentos.finish_wait(p_key text, p_result json) RETURNS void LANGUAGE sql AS $$
    DELETE FROM agentos.waits w WHERE w.ledger_key = p_key;
    UPDATE agentos.tool_ledger l SET state = 'finished', result = p_result, finished_at = agentos.clock()
     WHERE l.ledger_key = p_key AND l.state = 'begun'
$$;

-- Ends those waits of an item that are over. Whether there was one: then the item must not be parked.
CREATE FUNCTION agentos.end_waits(p_item bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v agentos.waits; v_result json; v_ended boolean := false;
BEGIN
    FOR v IN SELECT * FROM agentos.waits w WHERE w.item_id = p_item ORDER BY w.ledger_key LOOP
        v_result := agentos.wait_result(v);
        CONTINUE WHEN v_result IS NULL;
        PERFORM agentos.finish_wait(v.ledger_key, v_result);
        v_ended := true;
    END LOOP;
    RETURN v_ended;
END $$;

-- Parked items whose time has come: slept, or timed out. Returns the queues that got some. A row somebody locks (a signal
-- on its way) is left to him.
CREATE FUNCTION agentos.promote_waiting(p_limit integer) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE v_at timestamptz := agentos.clock(); v_items bigint[]; v_queues text[];
BEGIN
    v_items := ARRAY(SELECT k.item_id FROM agentos.waiting k WHERE k.wake_at <= v_at
                      ORDER BY k.wake_at LIMIT p_limit FOR UPDATE SKIP LOCKED);
    IF cardinality(v_items) = 0 THEN RETURN '{}'; END IF;
    WITH over AS (
        DELETE FROM agentos.waits w WHERE w.item_id = ANY (v_items) AND w.wake_at <= v_at RETURNING w.ledger_key, w.reason)
    UPDATE agentos.tool_ledger l SET state = 'finished', result = agentos.time_over(o.reason), finished_at = v_at
      FROM over o WHERE l.ledger_key = o.ledger_key AND l.state = 'begun';
    WITH woken AS (DELETE FROM agentos.waiting k WHERE k.item_id = ANY (v_items) RETURNING *),
    ready AS (
        INSERT INTO agentos.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
        SELECT lane, rank, nextval('agentos.ready_seqs'), item_id, attempt, failures, crashes FROM woken)
    SELECT array_agg(DISTINCT l.queue) INTO v_queues FROM woken w JOIN agentos.lanes l ON l.lane = abs(w.lane);
    RETURN v_queues;
END $$;
