-- The engine is re-applied whole: functions, views and their row types go, tables stay. One transaction, so nobody
-- ever sees a schema without its engine.
-- CASCADE takes views and functions with it that stand on one another: each name is looked up again before it is used.
DO $$
DECLARE v record;
BEGIN
    FOR v IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind = 'v' LOOP
        CONTINUE WHEN NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = v.oid);
        EXECUTE format('DROP VIEW %s CASCADE', v.oid::regclass);
    END LOOP;
    FOR v IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'agentos'::regnamespace LOOP
        CONTINUE WHEN NOT EXISTS (SELECT 1 FROM pg_proc p WHERE p.oid = v.oid);
        EXECUTE format('DROP FUNCTION %s CASCADE', v.oid::regprocedure);
    END LOOP;
    FOR v IN SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind = 'c' LOOP
        CONTINUE WHEN NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = v.oid);
        EXECUTE format('DROP TYPE %s CASCADE', v.oid::regclass);
    END LOOP;
END $$;
