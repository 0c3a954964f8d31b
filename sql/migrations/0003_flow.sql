-- Flow control: which queues stand still, whose turn comes how often, and how much may run or start at once.
-- A database without any of it has these tables empty, and no claim reads them.

-- Nothing of these queues is claimed; what runs goes on.
CREATE TABLE agentos.paused_queues (
    queue     text PRIMARY KEY,
    paused_at timestamptz NOT NULL,
    paused_by text
);

-- How many turns a tenant gets for each turn of one that is not here.
CREATE TABLE agentos.fair_weights (
    fairness_key text PRIMARY KEY,
    weight       real NOT NULL CHECK (weight > 0)
);

-- One measure of one set of lanes. concurrency: items held at once; rate: items claimed within any period_s; depth: items
-- ready when one more is submitted. per: over all of the set together, or for each tenant or limit key by itself.
CREATE TABLE agentos.limits (
    limit_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope    text NOT NULL CHECK (scope IN ('all', 'queue', 'kind', 'tenant')),
    name     text NOT NULL,
    measure  text NOT NULL CHECK (measure IN ('concurrency', 'rate', 'depth')),
    per      text NOT NULL CHECK (per IN ('all', 'tenant', 'key')),
    most     integer NOT NULL CHECK (most >= 0),
    period_s float8,
    declared boolean NOT NULL,          -- by an app's handler; what an operator set stands over that
    UNIQUE (scope, name, measure, per)
);

-- The row that claims under one limit and key lock. Never written after it was made.
CREATE TABLE agentos.limit_gates (
    limit_id integer NOT NULL,
    key      text NOT NULL,
    PRIMARY KEY (limit_id, key)
);

-- What was claimed under a limit. The truth is lease_held: a grant of a concurrency limit counts while the lease with its
-- item and token is there, so nothing has to be given back by whoever ends, loses or kills one. Grants that do not count
-- any more are deleted by the next claim under the same gate.
CREATE TABLE agentos.limit_grants (
    limit_id   integer NOT NULL,
    key        text NOT NULL,
    granted_at timestamptz NOT NULL,
    item_id    bigint NOT NULL,
    token      uuid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, vacuum_truncate = off);
CREATE INDEX limit_grants_gate ON agentos.limit_grants (limit_id, key, granted_at);

-- Of a queue with a depth limit: how many submits it takes before its ready items are counted again.
CREATE TABLE agentos.queue_credits (
    queue  text PRIMARY KEY,
    credit integer NOT NULL
);
