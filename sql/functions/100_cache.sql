-- A model's output: nothing -> generating -> ready. One generator per key across the pool; the others wait for the row.
-- tokens: of an output that is ready, what its call came to.

CREATE TYPE agentos.cache_row AS (verdict text, call_token uuid, output text, generations integer, tokens bigint);

-- Verdicts: ready (the output), generate (the caller does, then cache_finish or cache_abandon), busy (somebody alive
-- generates: look with cache_state, then ask again), wait (calls in flight hold the budget), exceeded (the budget
-- refuses; output says why), parked (the same, and the item is parked by it: the lease has ended).
-- A generator that is dead, or lost its lease, is taken over. As in the ledger, an output expires only for callers
-- without a lease. p_call as in ledger_begin. p_own: the key of this task's own record, when p_key is one that other
-- tasks share; a task that has used an output finds it again, whatever becomes of the shared one.
-- p_tokens, p_cost: what the call may come to cost (p_cost null: its model has no price).
-- p_request: what is asked, kept to be shown; its large values are parts (`keep_blobs`), of which p_parts are all and
-- p_new those that may not be stored yet. Null: it is not kept.
-- Dies the caller before the commit: nothing was asked. After it: the row says generating by somebody who is gone.
CREATE FUNCTION agentos.cache_begin(
    p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_operation text, p_model text,
    p_prompt_sha256 text, p_preview text, p_expires_s float8, p_call uuid DEFAULT gen_random_uuid(), p_own text DEFAULT NULL,
    p_tokens bigint DEFAULT 0, p_cost numeric DEFAULT 0, p_request text DEFAULT NULL, p_parts text[] DEFAULT '{}',
    p_new text[] DEFAULT '{}', p_bodies bytea[] DEFAULT '{}')
RETURNS agentos.cache_row LANGUAGE plpgsql AS $$
DECLARE v agentos.cache_row := agentos.cache_turn(p_key, p_task, p_item, p_worker, p_token, p_operation, p_model,
    p_prompt_sha256, p_preview, p_expires_s, p_call, p_own, p_tokens, p_cost);
BEGIN
    IF p_request IS NULL THEN RETURN v; END IF;
    IF v.verdict = 'generate' THEN
        UPDATE agentos.llm_cache c SET request = p_request::json WHERE c.cache_key = p_key AND c.call_token = p_call;
    END IF;
    IF v.verdict = 'generate' OR v.verdict = 'ready' AND p_own IS NOT NULL THEN  -- the task has a row that names them
        PERFORM agentos.keep_blobs(p_task, p_parts, p_new, p_bodies);
    END IF;
    RETURN v;
END $$;

-- Whose turn it is.
CREATE FUNCTION agentos.cache_turn(
    p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_operation text, p_model text,
    p_prompt_sha256 text, p_preview text, p_expires_s float8, p_call uuid, p_own text, p_tokens bigint, p_cost numeric)
RETURNS agentos.cache_row LANGUAGE plpgsql AS $$
DECLARE v agentos.llm_cache; v_refusal json;
BEGIN
    IF p_token IS NOT NULL THEN PERFORM agentos.fence_live(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(), agentos.require_task(p_task); END IF;
    SELECT * INTO v FROM agentos.llm_cache c WHERE c.cache_key = p_own AND c.state = 'ready';
    IF v.cache_key IS NULL THEN SELECT * INTO v FROM agentos.llm_cache c WHERE c.cache_key = p_key; END IF;
    IF v.state = 'ready' AND (v.expires_at > agentos.clock() OR p_token IS NOT NULL AND v.cache_key = coalesce(p_own, p_key)) THEN
        PERFORM agentos.cache_hit(v, p_task, p_own);
        RETURN ('ready', v.call_token, v.output::text, v.generations,
                coalesce(v.prompt_tokens, 0)::bigint + coalesce(v.completion_tokens, 0))::agentos.cache_row;
    END IF;
    IF v.state = 'generating' AND v.call_token = p_call THEN
        RETURN ('generate', p_call, NULL, v.generations, NULL)::agentos.cache_row;
    END IF;
    IF v.state = 'generating' AND agentos.is_at_it(v.worker_id, v.item_id, v.token) THEN
        RETURN ('busy', v.call_token, NULL, v.generations, NULL)::agentos.cache_row;
    END IF;
    v_refusal := agentos.reserve(p_task, p_call, p_worker, p_item, p_token, p_tokens, p_cost);
    IF v_refusal IS NOT NULL THEN RETURN agentos.cache_refused(p_task, p_item, p_worker, p_token, p_call, v_refusal); END IF;
    INSERT INTO agentos.llm_cache AS c (cache_key, task_id, item_id, operation_type, model, prompt_sha256, prompt_preview,
        state, worker_id, token, call_token, created_at, expires_at)
    VALUES (p_key, p_task, p_item, p_operation, p_model, p_prompt_sha256, p_preview, 'generating', p_worker, p_token, p_call,
            agentos.clock(), agentos.clock() + make_interval(secs => p_expires_s))
    ON CONFLICT (cache_key) DO UPDATE SET task_id = p_task, item_id = p_item, state = 'generating', output = NULL,
        worker_id = p_worker, token = p_token, call_token = p_call, generations = c.generations + 1,
        created_at = excluded.created_at, expires_at = excluded.expires_at WHERE c.call_token = v.call_token
    RETURNING c.* INTO v;
    IF v.call_token = p_call THEN RETURN ('generate', p_call, NULL, v.generations, NULL)::agentos.cache_row; END IF;
    DELETE FROM agentos.budget_reservations r WHERE r.call_token = p_call;  -- somebody else was faster
    RETURN ('busy', NULL, NULL, 0, NULL)::agentos.cache_row;
END $$;

-- An output is used again: counted, and kept as the task's own when it is a shared one.
CREATE FUNCTION agentos.cache_hit(v agentos.llm_cache, p_task text, p_own text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE agentos.llm_cache SET hits = hits + 1 WHERE cache_key = v.cache_key;
    PERFORM agentos.cache_copy(v, p_task, p_own);
    PERFORM agentos.count_saved(p_task, v.model, v.prompt_tokens, v.completion_tokens, v.cost);
END $$;

CREATE FUNCTION agentos.cache_copy(v agentos.llm_cache, p_task text, p_own text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.llm_cache (cache_key, task_id, item_id, operation_type, model, prompt_sha256, prompt_preview, request,
        state, output, prompt_tokens, completion_tokens, cost, worker_id, token, call_token, created_at, expires_at)
    SELECT p_own, p_task, NULL, v.operation_type, v.model, v.prompt_sha256, v.prompt_preview, v.request, 'ready',
           v.output, v.prompt_tokens, v.completion_tokens, v.cost, v.worker_id, NULL, v.call_token, agentos.clock(), v.expires_at
     WHERE p_own <> v.cache_key ON CONFLICT (cache_key) DO NOTHING
$$;

-- What a budget's refusal means for the caller. An item whose budget parks it is parked in this transaction, so that
-- who raises the budget finds it; not while other calls of it are under way, which would lose their results.
CREATE FUNCTION agentos.cache_refused(p_task text, p_item bigint, p_worker bigint, p_token uuid, p_call uuid, p_refusal json)
RETURNS agentos.cache_row LANGUAGE plpgsql AS $$
DECLARE v_parks boolean := p_token IS NOT NULL AND p_refusal ->> 'on_exceed' = 'park';
BEGIN
    IF (p_refusal ->> 'wait')::boolean OR v_parks AND agentos.calls_in_flight(p_item, p_token, p_call) THEN
        RETURN ('wait', NULL, p_refusal::text, 0, NULL)::agentos.cache_row;
    END IF;
    PERFORM agentos.note(p_task, p_item, 'budget_exceeded',
                         (SELECT h.attempt FROM agentos.lease_held h WHERE h.item_id = p_item), p_worker, p_refusal);
    IF NOT v_parks THEN RETURN ('exceeded', NULL, p_refusal::text, 0, NULL)::agentos.cache_row; END IF;
    PERFORM agentos.park(p_worker, p_item, p_token, 'budget', NULL);
    RETURN ('parked', NULL, p_refusal::text, 0, NULL)::agentos.cache_row;
END $$;

-- What became of a generation somebody waits for: true while it is under way. Locks nothing, writes nothing.
CREATE FUNCTION agentos.cache_busy(p_key text, p_call uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM agentos.llm_cache c WHERE c.cache_key = p_key AND c.state = 'generating'
                      AND c.call_token = p_call AND agentos.is_at_it(c.worker_id, c.item_id, c.token))
$$;

-- False: another generator took the key over; its output counts. What was spent is settled in the same commit, once: a
-- reply that is lost may be asked for again.
CREATE FUNCTION agentos.cache_finish(p_key text, p_call uuid, p_item bigint, p_worker bigint, p_token uuid, p_output text,
                                     p_prompt_tokens integer, p_completion_tokens integer, p_task text DEFAULT NULL,
                                     p_cost numeric DEFAULT NULL, p_own text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v agentos.llm_cache; v_budgets text[];
BEGIN
    IF p_token IS NOT NULL THEN PERFORM agentos.fence(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(); END IF;
    v_budgets := agentos.lock_budgets(p_task);
    UPDATE agentos.llm_cache SET state = 'ready', output = p_output::json, prompt_tokens = p_prompt_tokens,
           completion_tokens = p_completion_tokens, cost = p_cost
     WHERE cache_key = p_key AND call_token = p_call AND state = 'generating' RETURNING * INTO v;
    IF v.cache_key IS NULL THEN
        RETURN EXISTS (SELECT 1 FROM agentos.llm_cache c WHERE c.cache_key = p_key AND c.call_token = p_call);
    END IF;
    PERFORM agentos.cache_copy(v, p_task, p_own);
    PERFORM agentos.count_spent(v_budgets, v.task_id, v.model, p_call, p_prompt_tokens, p_completion_tokens, p_cost);
    RETURN true;
END $$;

-- A generation that was paid and is not kept: cut off, not to be cached, or overtaken by another. Needs no lease: that
-- it was paid is true whoever holds the item. The event keeps it from being counted twice.
CREATE FUNCTION agentos.cache_discard(p_key text, p_call uuid, p_task text, p_model text, p_prompt_tokens integer,
                                      p_completion_tokens integer, p_cost numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_budgets text[];
BEGIN
    PERFORM agentos.enter_fence();
    v_budgets := agentos.lock_budgets(p_task);
    PERFORM pg_advisory_xact_lock(hashtextextended(p_call::text, 0));
    DELETE FROM agentos.llm_cache WHERE cache_key = p_key AND call_token = p_call AND state = 'generating';
    IF EXISTS (SELECT 1 FROM agentos.events e WHERE e.task_id = p_task AND e.event = 'output_discarded'
                  AND e.data ->> 'call' = p_call::text) THEN RETURN; END IF;
    PERFORM agentos.count_spent(v_budgets, p_task, p_model, p_call, p_prompt_tokens, p_completion_tokens, p_cost);
    PERFORM agentos.note(p_task, NULL, 'output_discarded', NULL, NULL, json_build_object('call', p_call, 'model', p_model,
                         'prompt_tokens', p_prompt_tokens, 'completion_tokens', p_completion_tokens));
END $$;

-- The generator raised: errors are never cached, and whoever waits generates next.
CREATE FUNCTION agentos.cache_abandon(p_key text, p_call uuid) RETURNS void LANGUAGE sql AS $$
    DELETE FROM agentos.budget_reservations WHERE call_token = p_call;
    DELETE FROM agentos.llm_cache WHERE cache_key = p_key AND call_token = p_call AND state = 'generating'
$$;

CREATE FUNCTION agentos.cache_invalidate(p_key text) RETURNS boolean LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM agentos.llm_cache WHERE cache_key = p_key AND state = 'ready' RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM gone)
$$;
