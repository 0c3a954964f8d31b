-- A worker whose sessions are gone: its process died, most likely, and its leases need not wait for its TTL. A guess that
-- saves time and nothing else: whoever still runs is refused by the fence, as after an expiry.

-- Since when sessions of this server live on. A start ends them all, a crash of one of its processes too, which resets the
-- statistics and is no new start. Statistics that somebody resets look the same: nobody is judged until he has beaten again.
CREATE FUNCTION agentos.sessions_since() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT greatest(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time())
$$;

-- The name that all sessions of one process have in common: "agentos-beat 9c1d…" says that its process is 9c1d….
CREATE FUNCTION agentos.process_of(p_application text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT nullif(split_part(p_application, ' ', 2), '')
$$;

-- Workers without any session now, whose last beat came by one that had their name, on this server as it runs. Everybody may
-- see whose sessions there are. To be judged they must stay so: declare_gone, in a later transaction.
CREATE FUNCTION agentos.gone_workers() RETURNS TABLE (worker_id bigint, beat_at timestamptz) LANGUAGE sql AS $$
    SELECT w.worker_id, w.beat_at FROM agentos.workers w
     WHERE w.state IN ('alive', 'draining') AND w.sessions IS NOT NULL AND w.sessions_since = agentos.sessions_since()
       AND NOT EXISTS (SELECT 1 FROM pg_stat_get_activity(NULL) a
                        WHERE agentos.process_of(a.application_name) = w.sessions)
$$;

-- Declares those dead that are still gone and have not beaten since they were found so. Returns them. Then `reclaim`.
CREATE FUNCTION agentos.declare_gone(p_workers bigint[], p_beats timestamptz[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE v_dead bigint[];
BEGIN
    PERFORM agentos.enter_fence();
    v_dead := ARRAY(SELECT w.worker_id FROM agentos.workers w JOIN unnest(p_workers, p_beats) f(worker_id, beat_at)
                        ON f.worker_id = w.worker_id AND f.beat_at = w.beat_at FOR UPDATE OF w SKIP LOCKED);
    v_dead := ARRAY(SELECT g.worker_id FROM agentos.gone_workers() g WHERE g.worker_id = ANY (v_dead));
    UPDATE agentos.workers w SET state = 'dead' WHERE w.worker_id = ANY (v_dead);
    DELETE FROM agentos.offers o WHERE o.worker_id + 0 = ANY (v_dead);
    RETURN v_dead;
END $$;
