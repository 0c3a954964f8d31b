-- A submit that may be said again.

-- Reserves p_key for p_task. Null: it is new, and the caller's transaction submits the task; else the task that has the
-- key. Two who say it at once wait for each other at the key: if the first dies before its COMMIT, the key goes with it
-- and the second submits; after it, the second finds the task. Other content under the same key is refused.
CREATE FUNCTION agentos.submit_key(p_key text, p_task text, p_kind text, p_sha256 text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v agentos.submit_keys;
BEGIN
    INSERT INTO agentos.submit_keys (idempotency_key, task_id, kind, payload_sha256, created_at)
    VALUES (p_key, p_task, p_kind, p_sha256, agentos.clock()) ON CONFLICT DO NOTHING;
    IF FOUND THEN RETURN NULL; END IF;
    SELECT * INTO v FROM agentos.submit_keys k WHERE k.idempotency_key = p_key;
    IF v.kind <> p_kind OR v.payload_sha256 <> p_sha256 THEN
        RAISE EXCEPTION 'the idempotency key % was used for another submit: task %, a % with payload hash %, and this is a % with %',
            quote_literal(p_key), v.task_id, v.kind, left(v.payload_sha256, 12), p_kind, left(p_sha256, 12)
            USING ERRCODE = 'AG046', HINT = 'use a key of its own for each request, see the first: agentos show ' || v.task_id;
    END IF;
    RETURN v.task_id;
END $$;

-- The same for p_window_s seconds from the first submit on: after them the key is free again, for whoever comes first.
-- What was submitted within them counts, whatever has become of it.
CREATE FUNCTION agentos.submit_unique(p_key text, p_task text, p_kind text, p_sha256 text, p_window_s float8) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE v_task text; v_now timestamptz := agentos.clock();
BEGIN
    INSERT INTO agentos.submit_keys AS k (idempotency_key, task_id, kind, payload_sha256, created_at)
    VALUES (p_key, p_task, p_kind, p_sha256, v_now)
    ON CONFLICT (idempotency_key) DO UPDATE
       SET task_id = excluded.task_id, payload_sha256 = excluded.payload_sha256, created_at = excluded.created_at
     WHERE k.created_at <= v_now - make_interval(secs => p_window_s);
    IF FOUND THEN RETURN NULL; END IF;
    SELECT k.task_id INTO v_task FROM agentos.submit_keys k WHERE k.idempotency_key = p_key;
    RETURN v_task;
END $$;
