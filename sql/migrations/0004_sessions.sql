-- Which sessions a worker has: told at each beat, see sql/functions/031_sessions.sql.

ALTER TABLE agentos.workers
    ADD COLUMN sessions text,                   -- what their application_name ends with; null: it cannot be told
    ADD COLUMN sessions_since timestamptz;      -- of the server that took the beat
