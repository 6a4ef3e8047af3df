-- +goose Up
-- +goose StatementBegin

-- What the relay reads: inserts into the outbox, under the name of the root table. Run by the table's owner, who needs
-- CREATE on the database (or a superuser), and always before the slot is made: a slot that is older than the
-- publication stops at, or from PostgreSQL 18 on silently passes over, the rows written in between.
DO $outbox$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'payments_outbox') THEN
        CREATE PUBLICATION "payments_outbox" FOR TABLE public.outbox WITH (publish = 'insert', publish_via_partition_root = true);
    END IF;
END
$outbox$;

-- +goose StatementEnd
