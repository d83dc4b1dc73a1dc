-- Least-privilege roles of one service, applied before every migration and safe to repeat. Needs CREATEROLE and, on
-- RDS, nothing more than the master user has. A login gets its password from <ROLE>_PASSWORD, never from here.
DO $roles$
DECLARE
    wanted text;
    granted record;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[{owner_name}, {app_name}, {reader_name}, {backup_name}, {monitoring_name}] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', wanted);
        END IF;
    END LOOP;
    -- Whoever migrates must be able to become the owner: since PostgreSQL 16 creating a role no longer implies it.
    IF NOT pg_has_role(current_user, {owner_name}, 'SET') OR NOT pg_has_role(current_user, {owner_name}, 'USAGE') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET TRUE', {owner_name});
    END IF;
    FOR granted IN SELECT * FROM (VALUES ('pg_read_all_data', {backup_name}), ('pg_monitor', {monitoring_name})) AS v(role, member) LOOP
        IF NOT pg_has_role(granted.member, granted.role, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', granted.role, granted.member);
        END IF;
    END LOOP;
END
$roles$;
