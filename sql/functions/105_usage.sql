-- Tokens and cost, spent and saved, by task, day and model: counted in the transaction of what they are about.

CREATE FUNCTION agentos.count_spent(p_budgets text[], p_task text, p_model text, p_call uuid, p_prompt integer,
                                    p_completion integer, p_cost numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_budgets) > 0 THEN
        PERFORM agentos.spend(p_budgets, p_call, coalesce(p_prompt, 0)::bigint + coalesce(p_completion, 0), p_cost);
    END IF;
    INSERT INTO agentos.llm_usage AS u (task_id, day, model, calls, prompt_tokens, completion_tokens, cost, unpriced_calls)
    VALUES (p_task, (agentos.clock() AT TIME ZONE 'UTC')::date, p_model, 1, coalesce(p_prompt, 0), coalesce(p_completion, 0),
            coalesce(p_cost, 0), (p_cost IS NULL)::integer)
    ON CONFLICT (task_id, day, model) DO UPDATE SET calls = u.calls + 1,
        prompt_tokens = u.prompt_tokens + excluded.prompt_tokens, cost = u.cost + excluded.cost,
        completion_tokens = u.completion_tokens + excluded.completion_tokens,
        unpriced_calls = u.unpriced_calls + excluded.unpriced_calls;
END $$;

CREATE FUNCTION agentos.count_saved(p_task text, p_model text, p_prompt integer, p_completion integer, p_cost numeric)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO agentos.llm_usage AS u (task_id, day, model, saved_calls, saved_prompt_tokens, saved_completion_tokens,
                                        saved_cost)
    VALUES (p_task, (agentos.clock() AT TIME ZONE 'UTC')::date, p_model, 1, coalesce(p_prompt, 0), coalesce(p_completion, 0),
            coalesce(p_cost, 0))
    ON CONFLICT (task_id, day, model) DO UPDATE SET saved_calls = u.saved_calls + 1,
        saved_prompt_tokens = u.saved_prompt_tokens + excluded.saved_prompt_tokens,
        saved_completion_tokens = u.saved_completion_tokens + excluded.saved_completion_tokens,
        saved_cost = u.saved_cost + excluded.saved_cost
$$;

-- Null: not told apart by it, or of all. p_task, p_model: only of these. p_days: of the last so many days, today counts.
CREATE FUNCTION agentos.usage_of(p_by text[], p_task text, p_model text, p_days integer, p_limit integer)
RETURNS TABLE (task_id text, model text, day date, calls bigint, prompt_tokens bigint, completion_tokens bigint, cost numeric,
               unpriced_calls bigint, saved_calls bigint, saved_prompt_tokens bigint, saved_completion_tokens bigint,
               saved_cost numeric) LANGUAGE sql AS $$
    SELECT g.task_id, g.model, g.day, sum(g.calls)::bigint, sum(g.prompt_tokens)::bigint, sum(g.completion_tokens)::bigint,
           sum(g.cost), sum(g.unpriced_calls)::bigint, sum(g.saved_calls)::bigint, sum(g.saved_prompt_tokens)::bigint,
           sum(g.saved_completion_tokens)::bigint, sum(g.saved_cost)
      FROM (SELECT CASE WHEN 'task' = ANY (p_by) THEN u.task_id END AS task_id,
                   CASE WHEN 'model' = ANY (p_by) THEN u.model END AS model,
                   CASE WHEN 'day' = ANY (p_by) THEN u.day END AS day, u.calls, u.prompt_tokens, u.completion_tokens, u.cost,
                   u.unpriced_calls, u.saved_calls, u.saved_prompt_tokens, u.saved_completion_tokens, u.saved_cost
              FROM agentos.llm_usage u
             WHERE (p_task IS NULL OR u.task_id = p_task) AND (p_model IS NULL OR u.model = p_model)
               AND u.day > (agentos.clock() AT TIME ZONE 'UTC')::date - p_days) g
     GROUP BY 1, 2, 3 ORDER BY 3 DESC NULLS LAST, 7 DESC, 4 DESC, 1, 2 LIMIT p_limit
$$;
