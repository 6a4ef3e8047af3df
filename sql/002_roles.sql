-- +goose Up
-- +goose StatementBegin

-- The four roles around the outbox. Run by a superuser (before PostgreSQL 16 only a superuser may give REPLICATION).
-- Safe to repeat. No passwords here: set them with \password or by your secret manager.
--
--   cdc_relay          streams. LOGIN, REPLICATION and CONNECT; no right on any table. Know that REPLICATION can decode
--                      every table of the database: treat its password like a copy of the data.
--   payment_app        the application: INSERT into the outbox and nothing else there, so no RETURNING.
--   outbox_auditor     SELECT on the outbox: audit, backfill, resync.
--   outbox_maintainer  owns the outbox, because PostgreSQL lets only the owner attach and drop partitions. There is no
--                      SECURITY DEFINER function that lends this right to anybody else.
DO $outbox$
DECLARE
    wanted name;
    part   regclass;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['cdc_relay', 'payment_app', 'outbox_auditor', 'outbox_maintainer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN', wanted);
        END IF;
        EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I', pg_catalog.current_database(), wanted);
    END LOOP;
    IF NOT (SELECT rolreplication FROM pg_catalog.pg_roles WHERE rolname = 'cdc_relay') THEN
        ALTER ROLE cdc_relay REPLICATION;
    END IF;
    -- Giving a table away needs membership in the new owner (PostgreSQL 16 gives its creator only the right to grant it).
    IF NOT pg_catalog.pg_has_role(current_user, 'outbox_maintainer', 'USAGE') THEN
        EXECUTE pg_catalog.format('GRANT outbox_maintainer TO %I', current_user);
    END IF;
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO payment_app, outbox_auditor, outbox_maintainer', 'public');
    EXECUTE pg_catalog.format('GRANT CREATE ON SCHEMA %I TO outbox_maintainer', 'public');
    FOR part IN SELECT relid FROM pg_catalog.pg_partition_tree('public.outbox'::pg_catalog.regclass) LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO outbox_maintainer', part);
    END LOOP;
END
$outbox$;

ALTER FUNCTION public.outbox_uuidv7() OWNER TO outbox_maintainer;
ALTER FUNCTION public.outbox_make_days(integer) OWNER TO outbox_maintainer;
REVOKE ALL ON public.outbox FROM PUBLIC;
GRANT INSERT ON public.outbox TO payment_app;
GRANT SELECT ON public.outbox TO outbox_auditor;

-- +goose StatementEnd
