"""The baselines' tables, in a schema of their own: the product's own layout, copied with its indexes and storage
options so that it stays the product's, a queue with a status column, and a table for bare commits.
"""

from typing import Any

import psycopg

COPIED = ("task_records", "work_items", "lease_ready", "lease_held", "outcomes")
STATUS_QUEUE = """
    CREATE TABLE raw.status_queue (
        item_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, task_id text NOT NULL, status text NOT NULL,
        payload json NOT NULL, worker_id bigint, token uuid, attempt integer NOT NULL DEFAULT 0, claimed_at timestamptz,
        finished_at timestamptz, result json);
    CREATE INDEX ON raw.status_queue (item_id) WHERE status = 'ready';
"""

BARE = "INSERT INTO raw.bare (body) VALUES ($1)"

# The rows of one submitted task. $1 task id, $2 payload, $3 rank.
SUBMIT = """
    WITH t AS (INSERT INTO raw.task_records (task_id, kind, title, queue, single, created_at)
               VALUES ($1, 'noop', 'noop', 'default', nextval('raw.item_ids'), clock_timestamp()) RETURNING single),
    w AS (INSERT INTO raw.work_items (item_id, task_id, seq, lane, max_attempts, single, rank, payload)
          SELECT single, $1, 1, 1, 5, true, $3::bigint, $2::json FROM t)
    INSERT INTO raw.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT 1, $3::bigint, nextval('raw.ready_seqs'), single, 0, 0, 0 FROM t
"""
# The same for many. $1 task ids, $2 payloads, $3 rank.
SUBMIT_MANY = """
    WITH i AS MATERIALIZED (SELECT t, p, nextval('raw.item_ids') AS id FROM unnest($1::text[], $2::text[]) u(t, p)),
    r AS (INSERT INTO raw.task_records (task_id, kind, title, queue, single, created_at)
          SELECT t, 'noop', 'noop', 'default', id, clock_timestamp() FROM i),
    w AS (INSERT INTO raw.work_items (item_id, task_id, seq, lane, max_attempts, single, rank, payload)
          SELECT id, t, 1, 1, 5, true, $3::bigint, p::json FROM i)
    INSERT INTO raw.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT 1, $3::bigint, nextval('raw.ready_seqs'), id, 0, 0, 0 FROM i
"""
# The items of one task. $1 keys, $2 payloads, $3 rank, $4 task id.
SUBMIT_ITEMS = """
    WITH w AS (INSERT INTO raw.work_items (item_id, task_id, seq, lane, max_attempts, single, rank, key, payload)
               SELECT nextval('raw.item_ids'), $4, n, 1, 5, false, $3::bigint, k, p::json
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u(k, p, n) RETURNING item_id)
    INSERT INTO raw.lease_ready (lane, rank, seq, item_id, attempt, failures, crashes)
    SELECT 1, $3::bigint, nextval('raw.ready_seqs'), item_id, 0, 0, 0 FROM w
"""
# The statements of the loops look up what they need by key, row by row, whatever the statistics say (ADR 25): the
# tables are full and empty by turns, and autovacuum analyzes them at any moment.

# ready -> held. $1 worker, $2 how many. A token is made as the product's is: random for the claim, then the item.
CLAIM = """
    WITH c AS MATERIALIZED (
        SELECT ctid AS row_at FROM raw.lease_ready WHERE lane = 1 ORDER BY rank, seq LIMIT $2::int
           FOR UPDATE SKIP LOCKED),
    d AS (DELETE FROM raw.lease_ready WHERE ctid = ANY (ARRAY(SELECT row_at FROM c)) RETURNING *),
    s AS MATERIALIZED (SELECT left(replace(gen_random_uuid()::text, '-', ''), 16) AS salt),
    h AS (INSERT INTO raw.lease_held (item_id, worker_id, token, lane, rank, attempt, failures, crashes, started,
                                      claimed_at)
          SELECT item_id, $1::bigint, (salt || lpad(to_hex(item_id), 16, '0'))::uuid, lane, rank, attempt + 1, failures,
                 crashes, true, clock_timestamp() FROM d CROSS JOIN s RETURNING *)
    SELECT h.item_id, h.token, h.attempt, w.task_id, w.payload
      FROM h CROSS JOIN LATERAL (SELECT task_id, payload FROM raw.work_items WHERE item_id = h.item_id OFFSET 0) w
"""
# held -> outcome, fenced by pairs; who calls it gives the items in order. A join with the pairs compared all that is
# held with each of them once the table was analyzed while nothing was: 43 us of the server an item, where this has 16.
# $1 worker, $2 items, $3 tokens, $4 results.
COMPLETE = """
    WITH d AS (
        DELETE FROM raw.lease_held h
         WHERE h.item_id = ANY ($2::bigint[]) AND h.item_id = ($2::bigint[])[array_position($3::uuid[], h.token)]
           AND h.worker_id + 0 = $1::bigint RETURNING h.*, ($4::text[])[array_position($3::uuid[], h.token)] AS result)
    INSERT INTO raw.outcomes (item_id, token, worker_id, attempt, failures, crashes, status, claimed_at, finished_at,
                              result)
    SELECT d.item_id, d.token, d.worker_id, d.attempt, d.failures, d.crashes, 'completed', d.claimed_at,
           clock_timestamp(), d.result::json FROM d
"""
STATUS_FILL = """
    INSERT INTO raw.status_queue (task_id, status, payload)
    SELECT t, 'ready', p::json FROM unnest($1::text[], $2::text[]) u(t, p)
"""
STATUS_CLAIM = """
    UPDATE raw.status_queue q SET status = 'held', worker_id = $1::bigint, token = gen_random_uuid(),
           attempt = attempt + 1, claimed_at = clock_timestamp()
     WHERE q.ctid = ANY (ARRAY(SELECT ctid FROM raw.status_queue WHERE status = 'ready' ORDER BY item_id LIMIT $2::int
                                  FOR UPDATE SKIP LOCKED)) RETURNING q.item_id, q.token, q.attempt, q.task_id, q.payload
"""
STATUS_COMPLETE = """
    UPDATE raw.status_queue q SET status = 'completed', finished_at = clock_timestamp(),
           result = ($4::text[])[array_position($3::uuid[], q.token)]::json
     WHERE q.item_id = ANY ($2::bigint[]) AND q.item_id = ($2::bigint[])[array_position($3::uuid[], q.token)]
       AND q.worker_id = $1::bigint AND q.status = 'held'
"""


def make(conn: psycopg.Connection[Any]) -> None:
    """Make the schema `raw`. The schema `agentos` must be there."""
    conn.execute(b"CREATE SCHEMA raw; CREATE SEQUENCE raw.item_ids; CREATE SEQUENCE raw.ready_seqs CACHE 64;")
    conn.execute(b"CREATE TABLE raw.bare (id bigint GENERATED ALWAYS AS IDENTITY, body text)")
    conn.execute(STATUS_QUEUE.encode())
    for table in COPIED:
        options = conn.execute(
            "SELECT reloptions FROM pg_class WHERE oid = %s::regclass", (f"agentos.{table}",)
        ).fetchone()
        conn.execute(f"CREATE TABLE raw.{table} (LIKE agentos.{table} INCLUDING ALL)".encode())
        if options and options[0]:
            conn.execute(f"ALTER TABLE raw.{table} SET ({', '.join(options[0])})".encode())
