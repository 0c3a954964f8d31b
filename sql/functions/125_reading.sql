-- Reading tasks by calls: for roles that may not read a view.

CREATE FUNCTION agentos.read_task(p_task text) RETURNS SETOF agentos.tasks LANGUAGE sql STABLE AS $$
    SELECT * FROM agentos.tasks t WHERE t.task_id = p_task
$$;

-- The same of one that has just been made, for whoever made it: its status takes 8 us an item to find out.
CREATE FUNCTION agentos.read_new_task(p_task text)
RETURNS TABLE (task_id text, kind text, title text, queue text, status text, reason text, payload json, created_at timestamptz,
               finished_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT r.task_id, r.kind, r.title, r.queue, 'created', NULL::text, r.payload, r.created_at, NULL::timestamptz
      FROM agentos.task_records r WHERE r.task_id = p_task
$$;

-- The newest first.
CREATE FUNCTION agentos.list_tasks(p_limit integer, p_status text) RETURNS SETOF agentos.tasks LANGUAGE sql STABLE AS $$
    SELECT * FROM agentos.tasks t WHERE p_status IS NULL OR t.status = p_status ORDER BY t.created_at DESC LIMIT p_limit
$$;

CREATE FUNCTION agentos.read_items(p_task text) RETURNS SETOF agentos.task_items LANGUAGE sql STABLE AS $$
    SELECT * FROM agentos.task_items i WHERE i.task_id = p_task ORDER BY i.seq
$$;

-- What `migrate` has applied: a row for each migration, with the digest of the functions.
CREATE FUNCTION agentos.applied_schema() RETURNS TABLE (version integer, digest text, engine text) LANGUAGE sql STABLE AS $$
    SELECT m.version, m.digest, (SELECT e.digest FROM agentos.engine e) FROM agentos.migrations m
$$;
