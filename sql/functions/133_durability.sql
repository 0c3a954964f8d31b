-- What a process says at its start.

-- Settings of this session that let a crash of the server lose what was acknowledged, and who set them: the server's
-- configuration, the database, the role, the session.
CREATE FUNCTION agentos.unsafe_settings() RETURNS TABLE (name text, source text) LANGUAGE sql STABLE AS $$
    SELECT s.name, s.source FROM pg_settings s
     WHERE s.name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND s.setting = 'off' ORDER BY 1
$$;
