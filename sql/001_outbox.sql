-- +goose Up
-- +goose StatementBegin

-- The transactional outbox. One row is one event; cdc-relay reads inserts from the WAL, in commit order, and nobody has
-- to read, update or delete rows. Needs PostgreSQL 14 or newer.

-- A UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 bits of the fraction of the millisecond, 62 random bits, so that ids
-- of one server rise with time. The body is bound when the function is made; no search_path can change what it calls.
CREATE OR REPLACE FUNCTION public.outbox_uuidv7() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
    RETURN (
        SELECT pg_catalog.encode(
                   pg_catalog.substring(pg_catalog.int8send(t.us / 1000), 3)
                || pg_catalog.int2send((28672 + (t.us % 1000) * 4096 / 1000)::int2)
                || pg_catalog.substring(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()), 9), 'hex')::uuid
        FROM (SELECT pg_catalog.floor(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::int8 AS us) AS t
    );

-- A payload above 64 MiB is refused here, in the transaction that can still do something about it; a value that the
-- server cannot print as text would block the slot. pg_column_size of a new value is its length in memory: no copy.
CREATE TABLE IF NOT EXISTS public.outbox (
    id            uuid        NOT NULL DEFAULT public.outbox_uuidv7() PRIMARY KEY,
    aggregatetype text        NOT NULL,
    aggregateid   text        NOT NULL,
    type          text        NOT NULL,
    payload       jsonb       CONSTRAINT outbox_payload_size CHECK (pg_catalog.pg_column_size(payload) <= 67108864),
    headers       jsonb       NOT NULL DEFAULT '{}' CONSTRAINT outbox_headers_object CHECK (pg_catalog.jsonb_typeof(headers) = 'object'),
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.now()
) PARTITION BY RANGE (id);

-- Takes what no day takes: ids that are no UUIDv7, and days that nobody made. No insert fails for want of a partition.
CREATE TABLE IF NOT EXISTS public.outbox_default PARTITION OF public.outbox DEFAULT;

-- Makes the partitions of today and the following days (UTC), as many as asked for, and returns how many it made. Safe
-- to repeat. A day that already has rows in the DEFAULT partition stays there: moving them would publish them again.
-- Runs with the caller's rights, who must own the table. A table is made first and attached then, because that does not
-- lock out inserts into other days.
CREATE OR REPLACE FUNCTION public.outbox_make_days(days integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '5s'
AS $outbox$
DECLARE
    parent  CONSTANT regclass := 'public.outbox'::regclass;
    spare   CONSTANT regclass := 'public.outbox_default'::regclass;
    schema  name;
    stem    name;
    today   CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    day     date;
    part    text;
    low     uuid;
    high    uuid;
    waiting boolean;
    made    integer := 0;
BEGIN
    SELECT n.nspname, c.relname INTO schema, stem
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = parent;
    -- Two callers at once would make the same day twice.
    PERFORM pg_advisory_xact_lock('pg_class'::regclass::oid::integer, parent::oid::integer);
    FOR i IN 0 .. days - 1 LOOP
        day := today + i;
        part := stem || to_char(day, '"_"YYYYMMDD');
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = schema AND c.relname = part);
        low  := rpad(lpad(to_hex(extract(epoch FROM day::timestamp)::int8 * 1000), 12, '0'), 32, '0')::uuid;
        high := rpad(lpad(to_hex(extract(epoch FROM (day + 1)::timestamp)::int8 * 1000), 12, '0'), 32, '0')::uuid;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE id >= $1 AND id < $2)', spare) INTO waiting USING low, high;
        CONTINUE WHEN waiting;
        BEGIN
            EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', schema, part, parent);
            EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)', parent, schema, part, low, high);
            made := made + 1;
        EXCEPTION WHEN check_violation THEN
            NULL; -- a row of that day came into the DEFAULT partition just now
        END;
    END LOOP;
    RETURN made;
END
$outbox$;
REVOKE ALL ON FUNCTION public.outbox_make_days(integer) FROM PUBLIC;

SELECT public.outbox_make_days(14);

-- +goose StatementEnd
