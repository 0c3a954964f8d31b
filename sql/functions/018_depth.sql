-- Back-pressure: a submit into a queue that has enough is refused.

-- Ready items of a queue, counted up to p_most. What is delayed, waits or runs does not count.
CREATE FUNCTION agentos.queue_depth(p_queue text, p_most integer) RETURNS integer LANGUAGE sql AS $$
    SELECT count(*)::integer FROM (
        SELECT 1 FROM agentos.lanes l CROSS JOIN (VALUES (1), (-1)) s(sign)
         CROSS JOIN LATERAL (SELECT 1 FROM agentos.lease_ready r WHERE r.lane = s.sign * l.lane LIMIT p_most) r
         WHERE l.queue = p_queue LIMIT p_most) x
$$;

-- Lets p_count more into a queue, or raises QueueFull. Credit is what the last count left: it is spent by submits, and
-- only when it is gone are the ready items counted again, up to p_most. Exact for submits: the row is locked until the
-- caller's transaction ends, so each sees what those before it put there. A caller that dies or rolls back spent nothing.
CREATE FUNCTION agentos.admit_depth(p_queue text, p_most integer, p_count integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_credit integer; v_depth integer;
BEGIN
    SELECT c.credit INTO v_credit FROM agentos.queue_credits c WHERE c.queue = p_queue FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    IF v_credit < p_count THEN
        v_depth := agentos.queue_depth(p_queue, p_most);
        v_credit := p_most - v_depth;
        IF v_credit < p_count THEN
            RAISE EXCEPTION 'queue % takes % more: % items are ready, and its max_depth is %', quote_literal(p_queue), v_credit,
                CASE WHEN v_depth = p_most THEN 'at least ' ELSE '' END || v_depth, p_most USING ERRCODE = 'AG081', HINT =
                'submit it again later, start more workers, or raise it: agentos limit set queue ' || p_queue || ' --max-depth N';
        END IF;
    END IF;
    UPDATE agentos.queue_credits c SET credit = v_credit - p_count WHERE c.queue = p_queue;
END $$;

-- The same for the items of a plan, in whatever queues they are.
CREATE FUNCTION agentos.admit_plan(p_queues text[]) RETURNS void LANGUAGE sql AS $$
    SELECT agentos.admit_depth(d.queue, x.most, d.n)
      FROM (SELECT q AS queue, count(*)::integer AS n FROM unnest(p_queues) q GROUP BY 1 ORDER BY 1) d
      JOIN agentos.limits x ON x.scope = 'queue' AND x.name = d.queue AND x.measure = 'depth' AND x.per = 'all'
$$;

-- p_most: ready items that a queue may have when one more is submitted; null: it has no limit any more. Waits until no
-- lane is being made, so that none is without it; submits under way are the last that do not obey.
CREATE FUNCTION agentos.set_depth(p_queue text, p_most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_former integer;
BEGIN
    PERFORM agentos.enter_fence(), set_config('lock_timeout', '2s', true);
    LOCK TABLE agentos.lanes IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM agentos.limits x WHERE x.scope = 'queue' AND x.name = p_queue AND x.measure = 'depth' RETURNING most INTO v_former;
    DELETE FROM agentos.queue_credits c WHERE c.queue = p_queue;
    IF p_most IS NOT NULL THEN
        INSERT INTO agentos.limits (scope, name, measure, per, most, declared)
        VALUES ('queue', p_queue, 'depth', 'all', p_most, false);
        INSERT INTO agentos.queue_credits (queue, credit) VALUES (p_queue, 0);
    END IF;
    UPDATE agentos.lanes l SET max_depth = p_most WHERE l.queue = p_queue;
    RETURN v_former IS DISTINCT FROM p_most;
END $$;
