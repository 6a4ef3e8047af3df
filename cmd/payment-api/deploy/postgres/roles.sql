-- The roles of compose.yaml, with passwords for a laptop: the ports are bound to loopback. What the roles may do is given
-- by `payment-api migrate up`, which makes them too where they are missing, but without passwords. Run once, by the
-- image's entry point, in the new database. Safe to repeat.
DO $roles$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['cdc_relay', 'payment_app', 'notifier'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN PASSWORD %L', wanted, wanted);
        END IF;
    END LOOP;
    ALTER ROLE cdc_relay REPLICATION;
END
$roles$;

-- The notifier's inbox has a schema of its own; its role's search_path begins there.
CREATE SCHEMA IF NOT EXISTS notifier AUTHORIZATION notifier;
