-- What is recorded of the work: checkpoints, tool calls, questions, model calls and what they cost, events.

CREATE TABLE agentos.checkpoints (
    task_id           text NOT NULL,
    sequence_number   bigint NOT NULL,
    item_id           bigint,
    ordinal           integer,           -- n-th checkpoint of its item in program order
    checkpoint_type   text NOT NULL CHECK (checkpoint_type IN ('iteration_start', 'iteration_end', 'tool_executed',
                          'llm_response', 'approval_point', 'state_transition', 'manual_checkpoint', 'error_boundary')),
    step_id           uuid NOT NULL,     -- made by the writer: a commit whose reply was lost finds itself
    snapshot          json NOT NULL,
    snapshot_sha256   text NOT NULL,
    evidence          json NOT NULL,
    host              text NOT NULL,
    workspace         text NOT NULL,
    worker_id         bigint,
    attempt           integer,
    created_at        timestamptz NOT NULL,
    superseded_at     timestamptz,
    superseded_reason text,
    PRIMARY KEY (task_id, sequence_number)
);
CREATE UNIQUE INDEX checkpoints_step ON agentos.checkpoints (task_id, step_id);
CREATE INDEX checkpoints_item ON agentos.checkpoints (item_id, sequence_number) WHERE item_id IS NOT NULL;

CREATE TABLE agentos.tool_ledger (
    ledger_key      text PRIMARY KEY,    -- sha256 of the call's identity
    task_id         text NOT NULL,
    item_id         bigint,
    tool_name       text NOT NULL,
    call_key        text,                -- the caller's own key, when it gave one
    ordinal         integer,             -- checkpoints of the item before the call, in program order
    nth             integer,             -- n-th such call since that checkpoint
    position        integer,             -- n-th call since then, of those made one after the other; null: beside others
    arguments       json NOT NULL,
    state           text NOT NULL CHECK (state IN ('begun', 'finished', 'failed')),
    on_doubt        text NOT NULL CHECK (on_doubt IN ('retry', 'probe', 'ask', 'fail')),
    idempotency_key text NOT NULL,
    produces        json NOT NULL,
    result          json,
    exit_code       integer,
    error           text,
    worker_id       bigint,
    token           uuid,                -- the lease that began it, when there was one
    call_token      uuid NOT NULL,       -- fresh per execution: who finishes must be who began
    executions      integer NOT NULL DEFAULT 1,
    replays         integer NOT NULL DEFAULT 0,
    repairs         integer NOT NULL DEFAULT 0,
    begun_at        timestamptz NOT NULL,
    finished_at     timestamptz,
    expires_at      timestamptz NOT NULL
);
CREATE INDEX tool_ledger_task ON agentos.tool_ledger (task_id, begun_at);
CREATE INDEX tool_ledger_item ON agentos.tool_ledger (item_id) WHERE item_id IS NOT NULL;

-- What nobody but a person can tell: whether a call in doubt was done, or what a program that changed is to do. One row
-- per question; it is bound to the execution (call_token) that it asks about.
CREATE TABLE agentos.doubts (
    doubt_id    uuid PRIMARY KEY,        -- call: the call_token in doubt; program: made for it
    task_id     text NOT NULL,
    item_id     bigint,
    sort        text NOT NULL CHECK (sort IN ('call', 'program')),
    ledger_key  text NOT NULL,           -- call: the one in doubt; program: the recorded one
    ordinal     integer,                 -- program: the checkpoints of the item before it
    message     text NOT NULL,
    shown       json NOT NULL,           -- program: {"recorded": [...], "asked": {...}}
    asked_at    timestamptz NOT NULL,
    answer      text CHECK (answer IN ('done', 'not_done', 'fail', 'continue', 'rewound')),
    answered_by text,
    answered_at timestamptz
);
CREATE INDEX doubts_task ON agentos.doubts (task_id);
CREATE INDEX doubts_open ON agentos.doubts (asked_at) WHERE answer IS NULL;

CREATE TABLE agentos.llm_cache (
    cache_key         text PRIMARY KEY,  -- sha256 of operation_type, prompt, model, task_id, sample
    task_id           text NOT NULL,
    item_id           bigint,            -- who generated it
    operation_type    text NOT NULL,
    model             text NOT NULL,
    prompt_sha256     text NOT NULL,
    prompt_preview    text NOT NULL,
    request           json,              -- what was asked, large values as parts in blobs; null: not kept
    state             text NOT NULL CHECK (state IN ('generating', 'ready')),
    output            json,
    prompt_tokens     integer,
    completion_tokens integer,
    cost              numeric,           -- of the generation, by the prices of who paid; null: the model has none
    worker_id         bigint NOT NULL,   -- the generator, while it lives nobody else generates
    token             uuid,              -- the lease under which it generates, when there is one
    call_token        uuid NOT NULL,
    generations       integer NOT NULL DEFAULT 1,
    hits              integer NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL
);
CREATE INDEX llm_cache_task ON agentos.llm_cache (task_id);

-- Parts of large values, such as the messages of a conversation, each stored once whoever names it.
CREATE TABLE agentos.blobs (
    sha256      text PRIMARY KEY,
    body        bytea NOT NULL,          -- canonical JSON, UTF-8
    created_at  timestamptz NOT NULL,
    orphaned_at timestamptz              -- when its last reference went; null: it may have some
);
CREATE INDEX blobs_orphaned ON agentos.blobs (orphaned_at) WHERE orphaned_at IS NOT NULL;

CREATE TABLE agentos.blob_refs (
    task_id text NOT NULL,
    sha256  text NOT NULL,
    PRIMARY KEY (task_id, sha256)
);
CREATE INDEX blob_refs_sha256 ON agentos.blob_refs (sha256);

-- What model calls cost and what records saved, by task, day (UTC) and model. Written in the transaction of the record.
CREATE TABLE agentos.llm_usage (
    task_id                 text NOT NULL,
    day                     date NOT NULL,
    model                   text NOT NULL,
    calls                   bigint NOT NULL DEFAULT 0,     -- made and paid
    prompt_tokens           bigint NOT NULL DEFAULT 0,
    completion_tokens       bigint NOT NULL DEFAULT 0,
    cost                    numeric NOT NULL DEFAULT 0,
    unpriced_calls          bigint NOT NULL DEFAULT 0,     -- of the calls: of a model without a price
    saved_calls             bigint NOT NULL DEFAULT 0,     -- answered by a record
    saved_prompt_tokens     bigint NOT NULL DEFAULT 0,
    saved_completion_tokens bigint NOT NULL DEFAULT 0,
    saved_cost              numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, day, model)
) WITH (fillfactor = 80);
CREATE INDEX llm_usage_day ON agentos.llm_usage (day);

-- What a task may spend on models, with all its child tasks. A task without limits has no row, unless it is the child
-- of one that has. Limits that are null do not exist.
CREATE TABLE agentos.budgets (
    task_id      text PRIMARY KEY,
    parent       text,                  -- the task whose budget this one's calls count against, too
    max_tokens   bigint,
    max_cost     numeric,
    max_calls    bigint,
    max_wall_s   float8,                -- seconds of running, of all its items together
    on_exceed    text NOT NULL CHECK (on_exceed IN ('park', 'fail')),
    spent_tokens bigint NOT NULL DEFAULT 0,
    spent_cost   numeric NOT NULL DEFAULT 0,
    spent_calls  bigint NOT NULL DEFAULT 0,
    spent_wall_s float8 NOT NULL DEFAULT 0   -- of attempts that ended without an outcome
) WITH (fillfactor = 50);
CREATE INDEX budgets_parent ON agentos.budgets (parent) WHERE parent IS NOT NULL;

-- What calls that are being made may come to cost. One whose generator is gone counts for nothing.
CREATE TABLE agentos.budget_reservations (
    task_id    text NOT NULL,            -- of the budget; a call has one row for each budget above it
    call_token uuid NOT NULL,
    tokens     bigint NOT NULL,
    cost       numeric,
    worker_id  bigint NOT NULL,
    item_id    bigint,
    token      uuid,
    PRIMARY KEY (task_id, call_token)
);
CREATE INDEX budget_reservations_call ON agentos.budget_reservations (call_token);

-- The trace that a task was submitted in, as W3C headers: a row only for those that have one. Never updated.
CREATE TABLE agentos.traces (
    task_id     text PRIMARY KEY,
    traceparent text NOT NULL CHECK (length(traceparent) <= 255),
    tracestate  text CHECK (length(tracestate) <= 2048)
);

-- What happened to a task beside the happy path (which outcomes tell), and what its handlers told: append-only, by day.
-- kept: as of outcomes. A reader goes on after (xact, seq): the order in which nothing can appear before what was read, see `stream`.
CREATE SEQUENCE agentos.event_seqs AS bigint;
CREATE TABLE agentos.events (
    xact      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq       bigint NOT NULL DEFAULT nextval('agentos.event_seqs'),
    task_id   text NOT NULL,
    item_id   bigint,
    at        timestamptz NOT NULL,
    event     text NOT NULL,
    attempt   integer,
    worker_id bigint,
    data      json NOT NULL,
    kept      boolean NOT NULL DEFAULT false
) PARTITION BY RANGE (kept, at);
CREATE TABLE agentos.events_kept PARTITION OF agentos.events FOR VALUES FROM (true, MINVALUE) TO (true, MAXVALUE);
CREATE INDEX events_task ON agentos.events (task_id, xact, seq);
