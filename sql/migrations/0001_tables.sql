-- The tables. Item state is *where its row is*: exactly one of scheduled, lease_ready, lease_held, waiting, outcomes.
-- Narrow and append-only where it is hot; no foreign keys and no triggers, because an FK check takes
-- FOR KEY SHARE on the parent and turns concurrent completions into lock traffic.

-- One integer per (queue, kind, version, fairness key, limit key). A worker claims only lanes it serves, so work that
-- nobody can run costs a claim nothing. A row in lane -N is work of lane N that crashed its process once: it runs alone.
CREATE TABLE agentos.lanes (
    lane         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue        text NOT NULL,
    kind         text NOT NULL,
    version      integer NOT NULL DEFAULT 0,
    fairness_key text NOT NULL DEFAULT '',   -- the tenant: lanes of different ones take turns
    limit_key    text NOT NULL DEFAULT '',   -- what a limit per key counts by
    max_depth    integer,                    -- of its queue: submits ask `queue_credits`; null: they do not
    UNIQUE (queue, kind, version, fairness_key, limit_key)
);

-- What a user submitted; never updated. A task of one item keeps its payload in work_items only.
CREATE TABLE agentos.task_records (
    task_id    text PRIMARY KEY CHECK (length(task_id) BETWEEN 1 AND 255),
    kind       text,
    title      text NOT NULL,
    payload    json,
    queue      text NOT NULL,
    single     bigint,              -- item_id, when the task was submitted as exactly one item
    created_at timestamptz NOT NULL
);
CREATE INDEX task_records_created ON agentos.task_records (created_at DESC);

-- Submits that named themselves: the same key again is the same task. Written with it; updated only when a key that was
-- unique for a time is used again after it.
CREATE TABLE agentos.submit_keys (
    idempotency_key text PRIMARY KEY CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    task_id         text NOT NULL,
    kind            text NOT NULL,
    payload_sha256  text NOT NULL,
    created_at      timestamptz NOT NULL
);
CREATE INDEX submit_keys_task ON agentos.submit_keys (task_id);

-- The one mutable row per task. A one-item task has none until it checkpoints, is cancelled or grows.
CREATE TABLE agentos.task_heads (
    task_id          text PRIMARY KEY,
    last_seq         bigint NOT NULL DEFAULT 0,       -- last checkpoint sequence number
    open_items       integer,                         -- null: a one-item task, finished by its outcome row
    failed_items     integer NOT NULL DEFAULT 0,
    status           text CHECK (status IN ('completed', 'failed', 'cancelled')),
    reason           text,
    cancel_requested boolean NOT NULL DEFAULT false,
    finished_at      timestamptz,
    expired          boolean NOT NULL DEFAULT false,  -- its deadline passed: it ends as failed
    paused           boolean NOT NULL DEFAULT false,  -- nothing of it begins until it is resumed
    parent_task      text,                            -- of a child task: who waits for it, or may
    parent_item      bigint,
    purged_at        timestamptz,                     -- its content was taken away
    outputs_of       text,                            -- of a fork: the task whose model outputs answer it, too
    trimmed_at       timestamptz                      -- the first of its records were retired, before the task is
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, vacuum_truncate = off);

CREATE INDEX task_heads_parent ON agentos.task_heads (parent_task) WHERE parent_task IS NOT NULL;
CREATE INDEX task_heads_outputs ON agentos.task_heads (outputs_of) WHERE outputs_of IS NOT NULL;

-- Tasks that must have ended by a time. Goes when that has come.
CREATE TABLE agentos.deadlines (
    task_id     text PRIMARY KEY,
    deadline_at timestamptz NOT NULL
);
CREATE INDEX deadlines_at ON agentos.deadlines (deadline_at);

CREATE SEQUENCE agentos.item_ids AS bigint;
CREATE SEQUENCE agentos.ready_seqs AS bigint CACHE 64;

-- Insert-only; claim and completion never touch it.
CREATE TABLE agentos.work_items (
    item_id      bigint PRIMARY KEY,
    task_id      text NOT NULL,
    seq          integer NOT NULL,
    lane         integer NOT NULL,
    max_attempts smallint NOT NULL,
    single       boolean NOT NULL,
    timeout_s    real,
    rank         bigint NOT NULL,
    key          text,
    payload      json NOT NULL
);
CREATE INDEX work_items_task ON agentos.work_items (task_id, seq);
CREATE UNIQUE INDEX work_items_key ON agentos.work_items (task_id, key) WHERE key IS NOT NULL;

CREATE TABLE agentos.item_deps (
    needs   bigint NOT NULL,
    item_id bigint NOT NULL,
    PRIMARY KEY (needs, item_id)
);
CREATE INDEX item_deps_item ON agentos.item_deps (item_id);

-- Lease rows free to take. Deleted from and inserted into, never updated. rank = submit time (us) - priority x step,
-- so ageing rewrites no row; seq is fresh at each (re)enqueue.
CREATE TABLE agentos.lease_ready (
    lane     integer NOT NULL,
    rank     bigint NOT NULL,
    seq      bigint NOT NULL,
    item_id  bigint NOT NULL,
    attempt  integer NOT NULL,
    failures smallint NOT NULL,
    crashes  smallint NOT NULL,
    PRIMARY KEY (lane, rank, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);

-- Lease rows taken. Never updated per beat: liveness is one row per worker.
CREATE TABLE agentos.lease_held (
    item_id    bigint PRIMARY KEY,
    worker_id  bigint NOT NULL,
    token      uuid NOT NULL,
    lane       integer NOT NULL,
    rank       bigint NOT NULL,
    attempt    integer NOT NULL,
    failures   smallint NOT NULL,
    crashes    smallint NOT NULL,
    started    boolean NOT NULL,      -- false: prefetched; begun once its claim_no is in begun_claims
    claimed_at timestamptz NOT NULL,
    expires_at timestamptz,           -- own expiry (LeaseManager); null: lives as long as its worker
    claim_no   bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);
CREATE INDEX lease_held_worker ON agentos.lease_held (worker_id);
CREATE INDEX lease_held_expiry ON agentos.lease_held (expires_at) WHERE expires_at IS NOT NULL;

-- Which claims of prefetched items a worker has begun to run: one row a claim instead of an update of each lease. Each is
-- inserted and deleted by its key, never updated: under a pinned snapshot nobody walks over its dead rows.
CREATE TABLE agentos.begun_claims (
    worker_id bigint NOT NULL,
    claim_no  bigint NOT NULL,
    PRIMARY KEY (worker_id, claim_no)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, vacuum_truncate = off);

CREATE TABLE agentos.scheduled (
    item_id  bigint PRIMARY KEY,
    run_at   timestamptz NOT NULL,
    lane     integer NOT NULL,
    rank     bigint NOT NULL,
    attempt  integer NOT NULL,
    failures smallint NOT NULL,
    crashes  smallint NOT NULL
) WITH (vacuum_truncate = off);
CREATE INDEX scheduled_run_at ON agentos.scheduled (run_at);

-- Parked on dependencies or on a person: a row, not a slot.
CREATE TABLE agentos.waiting (
    item_id  bigint PRIMARY KEY,
    task_id  text NOT NULL,
    reason   text NOT NULL CHECK (reason IN ('dependencies', 'approval', 'sleep', 'signal', 'children', 'doubt',
                 'budget', 'paused')),
    pending  integer NOT NULL,         -- dependencies not yet completed
    since    timestamptz NOT NULL,
    wake_at  timestamptz,              -- ready again by itself then; null: never
    lane     integer NOT NULL,
    rank     bigint NOT NULL,
    attempt  integer NOT NULL,
    failures smallint NOT NULL,
    crashes  smallint NOT NULL
) WITH (vacuum_truncate = off);
CREATE INDEX waiting_task ON agentos.waiting (task_id);
CREATE INDEX waiting_wake ON agentos.waiting (wake_at) WHERE wake_at IS NOT NULL;

-- The recorded waits of items that are not over: several for one item, when branches of its handler wait at once. The
-- row comes with the call's row in tool_ledger ('begun') and goes with its end.
CREATE TABLE agentos.waits (
    ledger_key text PRIMARY KEY,
    item_id    bigint NOT NULL,
    task_id    text NOT NULL,
    reason     text NOT NULL CHECK (reason IN ('sleep', 'signal', 'approval', 'children')),
    name       text,                   -- of the signal
    since      timestamptz NOT NULL,
    wake_at    timestamptz             -- slept, or timed out, then; null: never
);
CREATE INDEX waits_item ON agentos.waits (item_id);
CREATE INDEX waits_signal ON agentos.waits (task_id, name) WHERE reason = 'signal';

-- What was sent to tasks. Kept until a wait takes it, in the order in which it came.
CREATE TABLE agentos.signals (
    signal_id uuid PRIMARY KEY,        -- made by the sender: one whose reply was lost may say it again
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    task_id   text NOT NULL,
    name      text NOT NULL,
    payload   json NOT NULL,
    sent_at   timestamptz NOT NULL,
    taken_by  text,                    -- ledger_key of the wait that it ended
    taken_at  timestamptz
);
CREATE INDEX signals_kept ON agentos.signals (task_id, name, seq) WHERE taken_by IS NULL;

-- What people were asked, by the wait that asks. The key is made of the question and of what was shown, so an answer
-- counts for exactly that.
CREATE TABLE agentos.approvals (
    ledger_key   text PRIMARY KEY,
    item_id      bigint NOT NULL,
    task_id      text NOT NULL,
    question     text NOT NULL,
    shown        json NOT NULL,
    shown_sha256 text NOT NULL,
    options      text[],
    asked_at     timestamptz NOT NULL,
    approved     boolean,
    option       text,
    answered_by  text,
    answered_at  timestamptz
);
CREATE INDEX approvals_item ON agentos.approvals (item_id);
CREATE INDEX approvals_task ON agentos.approvals (task_id);

-- Append-only, by day. The token stays, so that a completion whose reply was lost can find itself. kept: its day's partition
-- has gone, and its task has not; such rows are in a partition of their own, where a change of `kept` moves them in one step.
CREATE TABLE agentos.outcomes (
    item_id     bigint NOT NULL,
    token       uuid,
    worker_id   bigint,
    attempt     integer NOT NULL,
    failures    smallint NOT NULL,
    crashes     smallint NOT NULL,
    status      text NOT NULL CHECK (status IN ('completed', 'failed', 'quarantined', 'skipped', 'cancelled')),
    claimed_at  timestamptz,
    finished_at timestamptz NOT NULL,
    result      json,
    error       json,
    kept        boolean NOT NULL DEFAULT false
) PARTITION BY RANGE (kept, finished_at);
CREATE TABLE agentos.outcomes_kept PARTITION OF agentos.outcomes FOR VALUES FROM (true, MINVALUE) TO (true, MAXVALUE);
CREATE INDEX outcomes_item ON agentos.outcomes (item_id);
-- What on-call asks for: few rows, so an entry for those only.
CREATE INDEX outcomes_failed ON agentos.outcomes (status, finished_at) WHERE status IN ('failed', 'quarantined');
-- For the statistics' look at what ended lately: some bytes a megabyte, where a b-tree would pay an entry an outcome.
CREATE INDEX outcomes_finished ON agentos.outcomes USING brin (finished_at) WITH (pages_per_range = 64, autosummarize = on);

CREATE TABLE agentos.workers (
    worker_id     bigint PRIMARY KEY,
    label         text NOT NULL,
    host          text NOT NULL,
    pid           integer NOT NULL,
    process       text NOT NULL,        -- boot id, pid namespace, pid and start time: proves a local process gone
    version       text NOT NULL,
    role          text NOT NULL CHECK (role IN ('worker', 'solo', 'runner', 'lease', 'guest')),
    state         text NOT NULL CHECK (state IN ('alive', 'draining', 'stopped', 'dead')),
    ttl           interval NOT NULL,
    claim_epoch   integer NOT NULL DEFAULT 0,
    loop_lag_ms   integer NOT NULL DEFAULT 0,
    clock_skew_ms integer NOT NULL DEFAULT 0,  -- the database's clock minus the host's, at the last beat
    started_at    timestamptz NOT NULL,
    beat_at       timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    serves        json NOT NULL         -- {"queues": [...], "kinds": [...], "concurrency": n}
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, vacuum_truncate = off);

-- What is left of a task that was retired. Its rows go in slices after it; until they have, its id can not be used again.
CREATE TABLE agentos.retired_tasks (
    task_id     text PRIMARY KEY,
    kind        text,
    status      text NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    retired_at  timestamptz NOT NULL,
    cleared     boolean NOT NULL DEFAULT false
);
CREATE INDEX retired_tasks_open ON agentos.retired_tasks (retired_at) WHERE NOT cleared;
CREATE INDEX retired_tasks_at ON agentos.retired_tasks (retired_at);

-- The last round of retention: one row, so that who looks can tell whether it goes on and what stands in its way.
CREATE TABLE agentos.retention_rounds (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    began_at timestamptz NOT NULL,
    done_at  timestamptz,               -- of the last round that did all that was due
    blocked  json NOT NULL DEFAULT '{}' -- partition: why it could not go
);

CREATE TABLE agentos.leaders (
    name       text PRIMARY KEY,
    holder     bigint NOT NULL,
    term       bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

-- How much there is, by queue, kind and version: what the coordinator counted last, so that no metric ever counts.
CREATE TABLE agentos.lane_statistics (
    queue           text NOT NULL,
    kind            text NOT NULL,
    version         integer NOT NULL,
    ready           bigint NOT NULL DEFAULT 0,
    ready_exact     boolean NOT NULL DEFAULT true,  -- false: estimated from a sample, never below the count's bound
    held            bigint NOT NULL DEFAULT 0,
    scheduled       bigint NOT NULL DEFAULT 0,
    waiting         bigint NOT NULL DEFAULT 0,
    parked_exact    boolean NOT NULL DEFAULT true,  -- of held, scheduled and waiting
    oldest_ready_at timestamptz,                    -- at the earliest, of the item that is claimed next; null: none
    completed       bigint NOT NULL DEFAULT 0,      -- these five only grow
    failed          bigint NOT NULL DEFAULT 0,
    quarantined     bigint NOT NULL DEFAULT 0,
    cancelled       bigint NOT NULL DEFAULT 0,
    skipped         bigint NOT NULL DEFAULT 0,
    sampled_at      timestamptz,                    -- null: only its ends were counted so far
    PRIMARY KEY (queue, kind, version)
) WITH (fillfactor = 50);

-- Each count, for a day: until when ends are counted, and how far the lease rows' sequence had come.
CREATE TABLE agentos.statistics_runs (
    at            timestamptz PRIMARY KEY,
    counted_until timestamptz NOT NULL,
    ready_seq     bigint NOT NULL
);
CREATE INDEX statistics_runs_seq ON agentos.statistics_runs (ready_seq);

-- What ended, by minute, for a week.
CREATE TABLE agentos.throughput (
    minute      timestamptz NOT NULL,
    queue       text NOT NULL,
    kind        text NOT NULL,
    version     integer NOT NULL,
    completed   bigint NOT NULL,
    failed      bigint NOT NULL,
    quarantined bigint NOT NULL,
    cancelled   bigint NOT NULL,
    skipped     bigint NOT NULL,
    PRIMARY KEY (minute, queue, kind, version)
);

-- Tasks that stand still, by the coordinator's looks. One that is over has no row.
CREATE TABLE agentos.stuck_tasks (
    task_id text NOT NULL,
    reason  text NOT NULL CHECK (reason IN ('unroutable', 'silent')),
    item_id bigint NOT NULL,
    attempt integer NOT NULL,
    lane    integer,                 -- lane, rank, seq: of the ready row, of what is unroutable
    rank    bigint,
    seq     bigint,
    seen_at timestamptz NOT NULL,
    told_at timestamptz,             -- null: seen once, perhaps only for a moment
    data    json NOT NULL,
    PRIMARY KEY (task_id, reason)
);

-- What apps declared with @app.cron. The times are computed by the coordinator's calendar; a row is its next one.
CREATE TABLE agentos.cron_entries (
    name         text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 100),
    expression   text NOT NULL,
    timezone     text NOT NULL,
    misfire      text NOT NULL CHECK (misfire IN ('skip', 'once', 'all')),
    misfire_max  integer NOT NULL,
    kind         text NOT NULL,
    queue        text NOT NULL,
    version      integer NOT NULL,
    payload      json NOT NULL,
    tells_time   boolean NOT NULL,     -- the payload gets scheduled_at
    priority     integer NOT NULL,
    max_attempts integer NOT NULL,
    timeout_s    real,
    deadline_s   float8,
    budget       json,
    next_at      timestamptz NOT NULL,
    paused       boolean NOT NULL DEFAULT false,
    last_at      timestamptz,          -- the instant that was fired last
    last_task    text,
    skipped      bigint NOT NULL DEFAULT 0,  -- instants that came and were not fired
    declared_at  timestamptz NOT NULL
);
