-- Pause and resume: a flag on the head, read where cancel's is. Nothing is searched for: ready items are parked when they
-- are claimed, running ones at their next recorded call or after their next checkpoint. held -> waiting -> ready.

-- Pauses a task and its children, and theirs. Delayed and waiting items stay where they are: what wakes them is written as
-- ever, and they are parked when they are claimed. Deadlines go on. Returns the status: `running` until what runs is
-- parked. Died before its commit, nothing is paused; after it, all of the family is. Said again it means the same.
CREATE FUNCTION agentos.pause_task(p_task text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v_status text;
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task);
    INSERT INTO agentos.task_heads (task_id) VALUES (p_task) ON CONFLICT DO NOTHING;
    PERFORM agentos.lock_family(agentos.descendants(p_task));
    SELECT t.status INTO v_status FROM agentos.tasks t WHERE t.task_id = p_task;
    IF v_status IN ('completed', 'failed', 'cancelled') THEN RETURN v_status; END IF;
    WITH told AS (
        UPDATE agentos.task_heads t SET paused = true
         WHERE t.task_id = ANY (agentos.descendants(p_task)) AND t.status IS NULL AND NOT t.paused RETURNING t.task_id)
    INSERT INTO agentos.events (task_id, at, event, data)
    SELECT task_id, agentos.clock(), 'task_paused', json_build_object('by_way_of', nullif(p_task, task_id)) FROM told;
    RETURN agentos.open_status(p_task);
END $$;

-- The end of that, for the task and all below it. What was parked for the pause is ready, in the same commit. Died before
-- its commit, all is paused as it was; after it, nothing is. Returns the items.
CREATE FUNCTION agentos.resume_task(p_task text) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v_family text[]; v_items bigint[];
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task), agentos.lock_family(agentos.descendants(p_task));
    v_family := agentos.descendants(p_task);
    WITH told AS (
        UPDATE agentos.task_heads t SET paused = false WHERE t.task_id = ANY (v_family) AND t.paused RETURNING t.task_id)
    INSERT INTO agentos.events (task_id, at, event, data)
    SELECT task_id, agentos.clock(), 'task_resumed', json_build_object('by_way_of', nullif(p_task, task_id)) FROM told;
    SELECT agentos.unpark(coalesce(array_agg(k.item_id), '{}'), 'paused') INTO v_items
      FROM agentos.waiting k WHERE k.task_id = ANY (v_family) AND k.reason = 'paused';
    RETURN v_items;
END $$;

-- Parks an item that its holder was told is paused. False: it is not, any more; it goes on. Under the head's lock, which a
-- resume takes, so no item is parked after its resume. Died before the commit the item is held, and reclaimed; after it,
-- the resume makes it ready. Raises LeaseLost, TaskCancelled.
CREATE FUNCTION agentos.park_paused(p_worker bigint, p_item bigint, p_token uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_task text := agentos.fence_live(p_item, p_worker, p_token);
BEGIN
    PERFORM 1 FROM agentos.task_heads t WHERE t.task_id = v_task FOR UPDATE;
    IF NOT EXISTS (SELECT 1 FROM agentos.task_heads t WHERE t.task_id = v_task AND t.paused) THEN RETURN false; END IF;
    PERFORM agentos.park(p_worker, p_item, p_token, 'paused', NULL);
    RETURN true;
END $$;
