-- A model's output: nothing -> generating -> ready. One generator per key across the pool; the others wait for the row.

CREATE TYPE agentos.cache_row AS (verdict text, call_token uuid, output text, generations integer);

-- Verdicts: ready (the output), generate (the caller does, then cache_finish or cache_abandon), busy (somebody alive
-- generates: ask again later). A generator that is dead, or lost its lease, is taken over. As in the ledger, an output expires only for callers
-- without a lease. p_call as in ledger_begin.
CREATE FUNCTION agentos.cache_begin(
    p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_operation text, p_model text,
    p_prompt_sha256 text, p_preview text, p_expires_s float8, p_call uuid DEFAULT gen_random_uuid())
RETURNS agentos.cache_row LANGUAGE plpgsql AS $$
DECLARE v agentos.llm_cache;
BEGIN
    IF p_token IS NOT NULL THEN PERFORM agentos.fence_live(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(), agentos.require_task(p_task); END IF;
    INSERT INTO agentos.llm_cache AS c (cache_key, task_id, item_id, operation_type, model, prompt_sha256, prompt_preview,
        state, worker_id, token, call_token, created_at, expires_at)
    VALUES (p_key, p_task, p_item, p_operation, p_model, p_prompt_sha256, p_preview, 'generating', p_worker, p_token, p_call,
            agentos.clock(), agentos.clock() + make_interval(secs => p_expires_s))
    ON CONFLICT (cache_key) DO NOTHING RETURNING c.* INTO v;
    IF v.cache_key IS NOT NULL THEN RETURN ('generate', p_call, NULL, 1)::agentos.cache_row; END IF;
    SELECT * INTO v FROM agentos.llm_cache c WHERE c.cache_key = p_key FOR UPDATE;
    IF v.cache_key IS NULL THEN RETURN ('busy', NULL, NULL, 0)::agentos.cache_row; END IF;  -- abandoned just now
    IF v.state = 'ready' AND (p_token IS NOT NULL OR v.expires_at > agentos.clock()) THEN
        UPDATE agentos.llm_cache SET hits = hits + 1 WHERE cache_key = p_key;
        RETURN ('ready', v.call_token, v.output::text, v.generations)::agentos.cache_row;
    END IF;
    IF v.state = 'generating' AND v.call_token = p_call THEN
        RETURN ('generate', p_call, NULL, v.generations)::agentos.cache_row;
    END IF;
    IF v.state = 'generating' AND agentos.is_at_it(v.worker_id, v.item_id, v.token) THEN
        RETURN ('busy', v.call_token, NULL, v.generations)::agentos.cache_row;
    END IF;
    UPDATE agentos.llm_cache SET state = 'generating', output = NULL, worker_id = p_worker, item_id = p_item,
           token = p_token, call_token = p_call, generations = generations + 1, created_at = agentos.clock(),
           expires_at = agentos.clock() + make_interval(secs => p_expires_s) WHERE cache_key = p_key;
    RETURN ('generate', p_call, NULL, v.generations + 1)::agentos.cache_row;
END $$;

-- False: another generator took the key over; its output counts.
CREATE FUNCTION agentos.cache_finish(p_key text, p_call uuid, p_item bigint, p_worker bigint, p_token uuid, p_output text,
                                     p_prompt_tokens integer, p_completion_tokens integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_token IS NOT NULL THEN PERFORM agentos.fence(p_item, p_worker, p_token);
    ELSE PERFORM agentos.enter_fence(); END IF;
    UPDATE agentos.llm_cache SET state = 'ready', output = p_output::json, prompt_tokens = p_prompt_tokens,
           completion_tokens = p_completion_tokens WHERE cache_key = p_key AND call_token = p_call;
    RETURN FOUND;
END $$;

-- The generator raised: errors are never cached, and whoever waits generates next.
CREATE FUNCTION agentos.cache_abandon(p_key text, p_call uuid) RETURNS void LANGUAGE sql AS $$
    DELETE FROM agentos.llm_cache WHERE cache_key = p_key AND call_token = p_call AND state = 'generating'
$$;

CREATE FUNCTION agentos.cache_invalidate(p_key text) RETURNS boolean LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM agentos.llm_cache WHERE cache_key = p_key AND state = 'ready' RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM gone)
$$;
