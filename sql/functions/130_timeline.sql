-- Reading for people: what happened to one task, who works, and what is wrong. Nothing here writes.

CREATE FUNCTION agentos.task_events(p_task text, p_limit integer)
RETURNS TABLE (at timestamptz, event text, item_id bigint, attempt integer, worker_id bigint, data text) LANGUAGE sql AS $$
    SELECT e.at, e.event, e.item_id, e.attempt, e.worker_id, e.data::text
      FROM agentos.events e WHERE e.task_id = p_task ORDER BY e.xact DESC, e.seq DESC LIMIT p_limit
$$;

-- Newest first.
CREATE FUNCTION agentos.task_verdicts(p_task text, p_limit integer)
RETURNS TABLE (at timestamptz, item_id bigint, attempt integer, worker_id bigint, data text) LANGUAGE sql AS $$
    SELECT e.at, e.item_id, e.attempt, e.worker_id, e.data::text FROM agentos.events e
     WHERE e.task_id = p_task AND e.event = 'evidence_checked' ORDER BY e.xact DESC, e.seq DESC LIMIT p_limit
$$;

-- The superseded ones too; of the snapshot only its size, which may be megabytes.
CREATE FUNCTION agentos.task_checkpoints(p_task text, p_limit integer)
RETURNS TABLE (sequence_number bigint, item_id bigint, ordinal integer, checkpoint_type text, snapshot_bytes integer,
               snapshot_sha256 text, evidence text, host text, workspace text, worker_id bigint, attempt integer,
               created_at timestamptz, superseded_at timestamptz, superseded_reason text) LANGUAGE sql AS $$
    SELECT c.sequence_number, c.item_id, c.ordinal, c.checkpoint_type, octet_length(c.snapshot::text), c.snapshot_sha256,
           c.evidence::text, c.host, c.workspace, c.worker_id, c.attempt, c.created_at, c.superseded_at, c.superseded_reason
      FROM agentos.checkpoints c WHERE c.task_id = p_task ORDER BY c.sequence_number DESC LIMIT p_limit
$$;

CREATE FUNCTION agentos.task_prompts(p_task text, p_limit integer)
RETURNS TABLE (item_id bigint, operation_type text, model text, state text, prompt_preview text, prompt_tokens integer,
               completion_tokens integer, generations integer, hits integer, created_at timestamptz, expires_at timestamptz)
LANGUAGE sql AS $$
    SELECT c.item_id, c.operation_type, c.model, c.state, c.prompt_preview, c.prompt_tokens, c.completion_tokens,
           c.generations, c.hits, c.created_at, c.expires_at
      FROM agentos.llm_cache c WHERE c.task_id = p_task ORDER BY c.created_at DESC LIMIT p_limit
$$;

-- Whole requests and outputs, as they are stored, newest first. p_limit is for pages: a conversation is large.
CREATE FUNCTION agentos.model_calls(p_task text, p_before timestamptz, p_limit integer)
RETURNS TABLE (call_id text, item_id bigint, operation_type text, model text, state text, prompt_sha256 text, request text,
               output text, created_at timestamptz) LANGUAGE sql AS $$
    SELECT c.cache_key, c.item_id, c.operation_type, c.model, c.state, c.prompt_sha256, c.request::text, c.output::text,
           c.created_at FROM agentos.llm_cache c
     WHERE c.task_id = p_task AND (p_before IS NULL OR c.created_at < p_before) ORDER BY c.created_at DESC LIMIT p_limit
$$;

-- `open`: it waits for an answer now.
CREATE FUNCTION agentos.task_approvals(p_task text)
RETURNS TABLE (question_id text, item_id bigint, question text, shown text, shown_sha256 text, options text[],
               asked_at timestamptz, expires_at timestamptz, open boolean, approved boolean, option text, answered_by text,
               answered_at timestamptz) LANGUAGE sql AS $$
    SELECT a.ledger_key, a.item_id, a.question, a.shown::text, a.shown_sha256, a.options, a.asked_at, w.wake_at,
           w.ledger_key IS NOT NULL, a.approved, a.option, a.answered_by, a.answered_at
      FROM agentos.approvals a LEFT JOIN agentos.waits w USING (ledger_key) WHERE a.task_id = p_task
     ORDER BY a.asked_at, a.ledger_key
$$;

-- Living workers, and those whose last beat is younger than p_gone_s. State `late`: it should have beaten, and no
-- coordinator has declared it dead yet.
CREATE FUNCTION agentos.list_workers(p_gone_s float8)
RETURNS TABLE (worker_id bigint, label text, host text, pid integer, role text, version text, state text, held integer,
               loop_lag_ms integer, started_at timestamptz, beat_at timestamptz, beat_age_s float8, ttl_s float8, serves text)
LANGUAGE sql AS $$
    SELECT w.worker_id, w.label, w.host, w.pid, w.role, w.version,
           CASE WHEN w.state IN ('alive', 'draining') AND w.expires_at <= agentos.clock() THEN 'late' ELSE w.state END,
           (SELECT count(*)::integer FROM agentos.lease_held h WHERE h.worker_id = w.worker_id), w.loop_lag_ms,
           w.started_at, w.beat_at, extract(epoch FROM agentos.clock() - w.beat_at)::float8,
           extract(epoch FROM w.ttl)::float8, w.serves::text
      FROM agentos.workers w
     WHERE w.state IN ('alive', 'draining') OR w.beat_at > agentos.clock() - make_interval(secs => p_gone_s)
     ORDER BY w.state IN ('stopped', 'dead'), w.started_at DESC
$$;

-- Whether a living coordinator leads.
CREATE FUNCTION agentos.is_led(p_name text) RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT 1 FROM agentos.leaders l WHERE l.name = p_name AND l.expires_at > agentos.clock())
$$;

-- What the server is and how it is set: one row per thing that is wrong. Partitions: whole days ahead of today.
CREATE FUNCTION agentos.server_findings(p_old_s float8) RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'partitions_short', json_build_object('parent', p.parent, 'days_ahead', p.days_ahead)
      FROM agentos.partitions_ahead() p WHERE p.days_ahead < 3
    UNION ALL
    SELECT 'not_durable', json_build_object('setting', s.name, 'value', s.setting) FROM pg_settings s
     WHERE s.name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND s.setting = 'off'
    UNION ALL
    SELECT 'clock_shifted', json_build_object('offset_s', round(c.offset_s))
      FROM (SELECT extract(epoch FROM agentos.clock() - clock_timestamp()) AS offset_s) c WHERE abs(c.offset_s) > 0.5
    UNION ALL
    SELECT 'old_transaction', json_build_object('pid', a.pid, 'user', a.usename, 'application', a.application_name,
               'state', a.state, 'age_s', extract(epoch FROM clock_timestamp() - a.xact_start)::bigint,
               'query', left(a.query, 120)) FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
       AND a.xact_start < clock_timestamp() - make_interval(secs => p_old_s)
    UNION ALL
    SELECT 'prepared_transaction', json_build_object('gid', x.gid, 'owner', x.owner,
               'age_s', extract(epoch FROM clock_timestamp() - x.prepared)::bigint) FROM pg_prepared_xacts x
     WHERE x.database = current_database() AND x.prepared < clock_timestamp() - make_interval(secs => p_old_s)
$$;

-- Who should work and does not.
CREATE FUNCTION agentos.worker_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    SELECT 'late_worker', json_build_object('worker_id', w.worker_id::text, 'label', w.label, 'host', w.host, 'pid', w.pid,
               'late_s', extract(epoch FROM agentos.clock() - w.expires_at)::bigint) FROM agentos.workers w
     WHERE w.state IN ('alive', 'draining') AND w.expires_at < agentos.clock() - interval '2 s'
    UNION ALL
    (SELECT 'orphaned_lease', json_build_object('task_id', i.task_id, 'item_id', h.item_id, 'worker_id', h.worker_id::text,
               'worker', w.label, 'held_s', extract(epoch FROM agentos.clock() - h.claimed_at)::bigint)
      FROM agentos.lease_held h JOIN agentos.work_items i USING (item_id) LEFT JOIN agentos.workers w USING (worker_id)
     WHERE h.expires_at <= agentos.clock() OR NOT agentos.is_alive(h.worker_id) ORDER BY h.claimed_at LIMIT 20)
    UNION ALL
    SELECT 'unroutable', json_build_object('queue', u.queue, 'kind', u.kind, 'version', u.version, 'served', u.served,
               'task_id', u.task_id, 'item_id', u.item_id, 'created_at', u.created_at) FROM agentos.unroutable_lanes u
    UNION ALL
    SELECT 'nobody_leads', json_build_object('next_due_s', d.s, 'late_workers', l.late)
      FROM agentos.next_due_s() d(s)
     CROSS JOIN (SELECT EXISTS (SELECT 1 FROM agentos.workers w WHERE w.state IN ('alive', 'draining')
                                   AND w.expires_at <= agentos.clock()) AS late) l
     WHERE NOT agentos.is_led('coordinator') AND (d.s IS NOT NULL OR l.late)
$$;

-- What waits for a person.
CREATE FUNCTION agentos.work_findings() RETURNS TABLE (finding text, data json) LANGUAGE sql AS $$
    (SELECT 'in_doubt', json_build_object('task_id', l.task_id, 'item_id', l.item_id, 'tool', l.tool_name,
               'begun_at', l.begun_at, 'on_doubt', l.on_doubt) FROM agentos.tool_ledger l
     WHERE l.state = 'begun' AND l.tool_name NOT LIKE '@%' AND NOT agentos.is_alive(l.worker_id)
       AND (SELECT t.status FROM agentos.tasks t WHERE t.task_id = l.task_id) NOT IN ('completed', 'cancelled')
     ORDER BY l.begun_at DESC LIMIT 20)
    UNION ALL
    (SELECT 'quarantined', json_build_object('task_id', w.task_id, 'item_id', o.item_id, 'key', w.key, 'crashes', o.crashes,
               'finished_at', o.finished_at) FROM agentos.outcomes o JOIN agentos.work_items w USING (item_id)
     WHERE NOT o.kept AND o.status = 'quarantined' AND o.finished_at > (SELECT agentos.clock() - interval '7 days')
     ORDER BY o.finished_at DESC LIMIT 20)
    UNION ALL
    (SELECT 'awaits_approval', json_build_object('task_id', k.task_id, 'item_id', k.item_id, 'question', a.question,
               'since', k.since) FROM agentos.waits k JOIN agentos.approvals a USING (ledger_key)
     ORDER BY k.since LIMIT 20)
$$;
