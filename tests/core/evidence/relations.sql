-- agentos' own schema as a check sees it: one view that evidence may name, tables that it may not.
CREATE SCHEMA agentos;
CREATE TABLE agentos.task_heads (task_id text PRIMARY KEY, status text);
CREATE VIEW agentos.tasks AS SELECT task_id, status FROM agentos.task_heads;
INSERT INTO agentos.task_heads VALUES ('task-123', 'completed'), ('task-124', 'running');
CREATE TABLE public.tasks (task_id text, status text);  -- a user's own: only `public.tasks` means it
INSERT INTO public.tasks VALUES ('task-123', 'mine');

CREATE TYPE public.mood AS ENUM ('fine', 'tired');
CREATE DOMAIN public.email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE public.orders (
    id bigint PRIMARY KEY, name text, code varchar(3), flag boolean, price numeric(10, 2), ratio double precision,
    made timestamptz, body jsonb, raw json, mood public.mood, mail public.email, tags text[], fixed char(4), day date,
    "Odd ""name%s" integer, gone text);
ALTER TABLE public.orders DROP COLUMN gone;
INSERT INTO public.orders VALUES
    (1, 'first', 'abc', true, 9.90, 0.5, '2026-01-01T00:00:00Z', '{"a": [1, 2]}', '{"b": 1}', 'fine', 'a@b', '{x}', 'ab',
     '2026-01-02', 7),
    (2, NULL, 'xyz', false, 12345678901234567.00::numeric / 1000000000, 1e-7, NULL, '"text"', NULL, 'tired', NULL, '{}',
     NULL, NULL, NULL),
    (9007199254740993, 'it''s; DROP TABLE orders; --', NULL, NULL, NULL, NULL, NULL, 'null', NULL, NULL, NULL, NULL, NULL,
     NULL, NULL),
    (4, 'twin', 'one', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (5, 'twin', 'two', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE public."we%ird ""table" (id integer);
INSERT INTO public."we%ird ""table" VALUES (1);
CREATE TABLE public.long_name_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx (id integer);

CREATE SCHEMA shop;
CREATE TABLE shop.carts (id integer) PARTITION BY RANGE (id);
CREATE TABLE shop.carts_low PARTITION OF shop.carts FOR VALUES FROM (0) TO (10);
INSERT INTO shop.carts VALUES (3);

CREATE VIEW public.order_view AS SELECT * FROM public.orders;
CREATE MATERIALIZED VIEW public.order_copy AS SELECT id FROM public.orders;
CREATE SEQUENCE public.counter;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE public.remote (id integer) SERVER nowhere;
CREATE TABLE public.mixed (id integer) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE public.mixed_remote PARTITION OF public.mixed FOR VALUES FROM (0) TO (10) SERVER nowhere;

-- An operator of somebody else before pg_catalog's on the search_path: used, it would make every id equal.
CREATE FUNCTION public.always(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.always);
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, shop, pg_catalog', current_database()); END $$;
