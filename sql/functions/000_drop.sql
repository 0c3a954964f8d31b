-- The engine is re-applied whole: functions, views and their row types go, tables stay. One transaction, so nobody
-- ever sees a schema without its engine.
DO $$
DECLARE v record;
BEGIN
    FOR v IN SELECT c.oid::regclass AS name FROM pg_class c
              WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind = 'v' LOOP
        EXECUTE format('DROP VIEW IF EXISTS %s CASCADE', v.name);
    END LOOP;
    FOR v IN SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = 'agentos'::regnamespace LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', v.name);
    END LOOP;
    FOR v IN SELECT c.oid::regclass AS name FROM pg_class c
              WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind = 'c' LOOP
        EXECUTE format('DROP TYPE IF EXISTS %s CASCADE', v.name);
    END LOOP;
END $$;
