-- What a task may spend on models: asked before a call is made, with what calls in flight may come to cost.

-- p_parent: the task whose budget counts these calls too. Saying it again replaces the limits and keeps what is spent.
CREATE FUNCTION agentos.set_budget(p_tasks text[], p_parent text, p_tokens bigint, p_cost numeric, p_calls bigint,
                                   p_wall_s float8, p_on_exceed text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.budgets AS b (task_id, parent, max_tokens, max_cost, max_calls, max_wall_s, on_exceed)
    SELECT t, p_parent, p_tokens, p_cost, p_calls, p_wall_s, p_on_exceed FROM unnest(p_tasks) t
    ON CONFLICT (task_id) DO UPDATE SET max_tokens = p_tokens, max_cost = p_cost, max_calls = p_calls,
           max_wall_s = p_wall_s, on_exceed = p_on_exceed
$$;

-- A child task's calls count against its parent's budget, if there is one. In the transaction that makes the child.
CREATE FUNCTION agentos.inherit_budget(p_parent text, p_child text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.budgets (task_id, parent, on_exceed)
    SELECT p_child, b.task_id, b.on_exceed FROM agentos.budgets b WHERE b.task_id = p_parent
    ON CONFLICT (task_id) DO UPDATE SET parent = p_parent
$$;

-- The budgets that count a task's calls, its own and those above, locked in one order until the transaction ends.
CREATE FUNCTION agentos.lock_budgets(p_task text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE v_chain text[];
BEGIN
    IF NOT EXISTS (SELECT 1 FROM agentos.budgets b WHERE b.task_id = p_task) THEN RETURN '{}'; END IF;
    WITH RECURSIVE above AS (
        SELECT b.task_id, b.parent FROM agentos.budgets b WHERE b.task_id = p_task
        UNION
        SELECT b.task_id, b.parent FROM above a JOIN agentos.budgets b ON b.task_id = a.parent)
    SELECT array_agg(a.task_id ORDER BY a.task_id) INTO v_chain FROM above a;
    PERFORM 1 FROM agentos.budgets b WHERE b.task_id = ANY (v_chain) ORDER BY b.task_id FOR UPDATE;
    RETURN v_chain;
END $$;

-- Seconds for which the task's items have run: attempts that ended as outcomes, those that ended otherwise, and those
-- that run now.
CREATE FUNCTION agentos.running_s(p_task text) RETURNS float8 LANGUAGE sql AS $$
    SELECT (SELECT b.spent_wall_s FROM agentos.budgets b WHERE b.task_id = p_task)
         + coalesce(sum(extract(epoch FROM o.finished_at - o.claimed_at)), 0)::float8
         + coalesce(sum(extract(epoch FROM agentos.clock() - h.claimed_at)), 0)::float8
      FROM agentos.work_items w LEFT JOIN agentos.outcomes o USING (item_id) LEFT JOIN agentos.lease_held h USING (item_id)
     WHERE w.task_id = p_task
$$;

-- Attempts that end without an outcome: their time counts on. Their leases are ended by the caller.
CREATE FUNCTION agentos.count_wall(p_ended agentos.ended[]) RETURNS void LANGUAGE sql AS $$
    UPDATE agentos.budgets b SET spent_wall_s = b.spent_wall_s + r.s
      FROM (SELECT w.task_id, sum(extract(epoch FROM agentos.clock() - e.claimed_at))::float8 AS s
              FROM unnest(p_ended) e JOIN agentos.work_items w USING (item_id) GROUP BY 1) r
     WHERE b.task_id = r.task_id AND b.max_wall_s IS NOT NULL
$$;

-- Outcomes that are about to be taken away (a retry, a rewind): the time of their attempts counts on.
CREATE FUNCTION agentos.keep_wall(p_task text, p_items bigint[]) RETURNS void LANGUAGE sql AS $$
    UPDATE agentos.budgets b SET spent_wall_s = b.spent_wall_s + coalesce((
           SELECT sum(extract(epoch FROM o.finished_at - o.claimed_at)) FROM agentos.outcomes o
            WHERE o.item_id = ANY (p_items)), 0)::float8 WHERE b.task_id = p_task AND b.max_wall_s IS NOT NULL
$$;

-- Each limit of these budgets with what is spent of it, what calls in flight have reserved, and what is asked for.
CREATE FUNCTION agentos.budget_limits(p_budgets text[], p_call uuid, p_tokens bigint, p_cost numeric)
RETURNS TABLE (task_id text, on_exceed text, name text, most numeric, spent numeric, reserved numeric, asked numeric)
LANGUAGE sql AS $$
    SELECT b.task_id, b.on_exceed, l.name, l.most, l.spent, l.reserved, l.asked
      FROM agentos.budgets b
     CROSS JOIN LATERAL (SELECT coalesce(sum(r.tokens), 0) AS tokens, coalesce(sum(r.cost), 0) AS cost, count(*) AS calls
                           FROM agentos.budget_reservations r WHERE r.task_id = b.task_id AND r.call_token <> p_call) r
     CROSS JOIN LATERAL (VALUES
           ('max_tokens', b.max_tokens::numeric, b.spent_tokens::numeric, r.tokens::numeric, p_tokens::numeric),
           ('max_cost', b.max_cost, b.spent_cost, r.cost, p_cost),
           ('max_calls', b.max_calls::numeric, b.spent_calls::numeric, r.calls::numeric, 1::numeric),
           ('max_wall_s', b.max_wall_s::numeric, CASE WHEN b.max_wall_s IS NULL THEN 0
                          ELSE round(agentos.running_s(b.task_id)::numeric, 3) END, 0, 0)) l(name, most, spent, reserved, asked)
     WHERE b.task_id = ANY (p_budgets) AND l.most IS NOT NULL
$$;

-- Whether a call may be made. Null: yes, and what it may cost is reserved until it is settled, abandoned, or its
-- generator is gone. Else why not: {task_id, on_exceed, limit, most, spent, asked}; `wait`: calls in flight hold it back,
-- and may come to cost less. A limit of which nothing is left refuses whatever is asked.
CREATE FUNCTION agentos.reserve(p_task text, p_call uuid, p_worker bigint, p_item bigint, p_token uuid, p_tokens bigint,
                                p_cost numeric) RETURNS json LANGUAGE plpgsql AS $$
DECLARE v_budgets text[] := agentos.lock_budgets(p_task); v_refusal json;
BEGIN
    IF cardinality(v_budgets) = 0 THEN RETURN NULL; END IF;
    DELETE FROM agentos.budget_reservations r
     WHERE r.task_id = ANY (v_budgets) AND NOT agentos.is_at_it(r.worker_id, r.item_id, r.token);
    SELECT json_build_object('task_id', l.task_id, 'on_exceed', l.on_exceed, 'limit', l.name, 'most', l.most::text,
                             'spent', l.spent::text, 'asked', l.asked::text,
                             'wait', l.reserved > 0 AND l.spent < l.most AND l.spent + l.asked <= l.most)
      INTO v_refusal FROM agentos.budget_limits(v_budgets, p_call, p_tokens, p_cost) l
     WHERE l.spent + l.reserved + l.asked > l.most OR l.spent >= l.most OR l.asked IS NULL
     ORDER BY l.reserved > 0 AND l.spent < l.most AND l.spent + l.asked <= l.most, l.name LIMIT 1;
    IF v_refusal IS NULL THEN
        INSERT INTO agentos.budget_reservations (task_id, call_token, tokens, cost, worker_id, item_id, token)
        SELECT b, p_call, p_tokens, p_cost, p_worker, p_item, p_token FROM unnest(v_budgets) b ON CONFLICT DO NOTHING;
    END IF;
    RETURN v_refusal;
END $$;

-- A call in flight turned out to cost this. The caller has locked these budgets.
CREATE FUNCTION agentos.spend(p_budgets text[], p_call uuid, p_tokens bigint, p_cost numeric) RETURNS void LANGUAGE sql AS $$
    DELETE FROM agentos.budget_reservations r WHERE r.call_token = p_call AND r.task_id = ANY (p_budgets);
    UPDATE agentos.budgets b SET spent_tokens = b.spent_tokens + p_tokens, spent_cost = b.spent_cost + coalesce(p_cost, 0),
           spent_calls = b.spent_calls + 1 WHERE b.task_id = ANY (p_budgets)
$$;

-- Whether calls of this attempt are under way that parking it would cut off: a model that was asked, a tool that runs.
CREATE FUNCTION agentos.calls_in_flight(p_item bigint, p_token uuid, p_call uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM agentos.tool_ledger l WHERE l.item_id = p_item AND l.state = 'begun' AND l.token = p_token
                      AND l.tool_name NOT LIKE '@%')
        OR EXISTS (SELECT 1 FROM agentos.budget_reservations r
                    WHERE r.item_id = p_item AND r.token = p_token AND r.call_token <> p_call)
$$;

-- Higher limits; null: as it was. What was parked for want of them, in this task and in its child tasks, is ready
-- again: it was parked under the lock that is taken here. Died before its commit, nothing changed; after it, all did.
-- Returns the items.
CREATE FUNCTION agentos.raise_budget(p_task text, p_tokens bigint, p_cost numeric, p_calls bigint, p_wall_s float8)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v_items bigint[];
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task), agentos.lock_budgets(p_task);
    UPDATE agentos.budgets b SET max_tokens = b.max_tokens + coalesce(p_tokens, 0), max_cost = b.max_cost + coalesce(p_cost, 0),
           max_calls = b.max_calls + coalesce(p_calls, 0), max_wall_s = b.max_wall_s + coalesce(p_wall_s, 0)
     WHERE b.task_id = p_task;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'task % has no budget', p_task USING ERRCODE = 'AG011',
            HINT = 'there is nothing to raise; a budget is given when the task is submitted';
    END IF;
    WITH RECURSIVE below AS (
        SELECT p_task AS task_id UNION SELECT b.task_id FROM below JOIN agentos.budgets b ON b.parent = below.task_id)
    SELECT agentos.unpark(coalesce(array_agg(k.item_id), '{}'), 'budget') INTO v_items
      FROM below JOIN agentos.waiting k USING (task_id) WHERE k.reason = 'budget';
    PERFORM agentos.note(p_task, NULL, 'budget_raised', NULL, NULL, json_build_object('tokens', p_tokens,
                         'cost', p_cost::text, 'calls', p_calls, 'wall_s', p_wall_s, 'woken', cardinality(v_items)));
    RETURN v_items;
END $$;

CREATE FUNCTION agentos.budget_of(p_task text)
RETURNS TABLE (name text, on_exceed text, most numeric, spent numeric, reserved numeric) LANGUAGE sql AS $$
    SELECT l.name, l.on_exceed, l.most, l.spent, l.reserved
      FROM agentos.budget_limits(ARRAY[p_task], '00000000-0000-0000-0000-000000000000', 0, 0) l
$$;
