-- The four roles of the database, each with the rights that its program needs and no others:
--
--   aggregator_owner   owns the tables, runs `aggregator-consumer migrate`
--   aggregator_writer  `aggregator-consumer run` and `replay`: changes rows, never tables
--   aggregator_pruner  `aggregator-consumer prune`: deletes rows, and sees no more of them than it needs to
--   aggregator_reader  `aggregator-api serve`: reads
--
-- Run it in the database itself, as a superuser, or from PostgreSQL 15 on as the owner of the database with
-- CREATEROLE (who has to own the tables too, if there are any): before the first `migrate`, after it, and after each
-- later one. It is one transaction, and changes nothing where nothing is missing. What `migrate` makes between two
-- runs has the default rights below, which are wider: all rows of all tables, still no DDL.
--
-- From PostgreSQL 16 on, who is no superuser and did not make the roles (another database of the server has them)
-- needs from a superuser:
--   GRANT aggregator_owner, aggregator_writer, aggregator_pruner, aggregator_reader TO ... WITH ADMIN OPTION.
--
-- What somebody granted to all but the owner meanwhile is taken back where it is about our tables, the schema public or
-- the database; and from all four memberships of one in another, and the attributes CREATEDB, CREATEROLE, REPLICATION
-- and BYPASSRLS. It does not look at what else they have: docs/deployment.md.
--
-- It holds no passwords, and a role without one can't log in where the server asks for it:
-- `\password aggregator_writer` in psql, or ALTER ROLE aggregator_writer PASSWORD '...'.
--
-- How to use it, also for the database of an existing deployment: docs/deployment.md.

BEGIN;

-- The roles. Roles belong to a server: another database of it may have made them already.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'aggregator_owner', 'aggregator_writer', 'aggregator_pruner', 'aggregator_reader'
    ] LOOP
        IF to_regrole(name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        ELSIF (SELECT rolsuper FROM pg_roles WHERE rolname = name) THEN
            RAISE EXCEPTION 'the role % is a superuser, whom no right can be taken from', name;
        ELSIF current_setting('server_version_num')::integer >= 160000
            AND NOT pg_has_role(name, 'MEMBER WITH ADMIN OPTION') THEN
            RAISE EXCEPTION 'the role % was made by somebody else, and % may not change it', name, current_user
                USING HINT = format(
                    'A superuser has to run: GRANT aggregator_owner, aggregator_writer, aggregator_pruner,'
                    ' aggregator_reader TO %I WITH ADMIN OPTION', current_user
                );
        END IF;
    END LOOP;
    -- who is no superuser gives tables away, and speaks for their owner below, as its member only
    IF NOT pg_has_role('aggregator_owner', 'USAGE') THEN
        EXECUTE format('GRANT aggregator_owner TO %I', current_user);
    END IF;
END
$$;

-- What they were given meanwhile. Memberships in other roles stay: some providers let a role log in by one.

DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT role.rolname AS role, attribute.without
        FROM pg_roles AS role
        CROSS JOIN LATERAL (VALUES
            ('NOCREATEDB', role.rolcreatedb),
            ('NOCREATEROLE', role.rolcreaterole),
            ('NOREPLICATION', role.rolreplication),
            ('NOBYPASSRLS', role.rolbypassrls)
        ) AS attribute (without, is_set)
        WHERE attribute.is_set AND role.rolname IN (
            'aggregator_owner', 'aggregator_writer', 'aggregator_pruner', 'aggregator_reader'
        )
    LOOP
        EXECUTE format('ALTER ROLE %I %s', given.role, given.without);
    END LOOP;
    FOR given IN
        SELECT
            entry.roleid::regrole AS role,
            entry.member::regrole AS member,
            -- from 16 on there is a membership for each who granted it; before, who granted it may be gone
            CASE WHEN current_setting('server_version_num')::integer >= 160000
                THEN format('GRANTED BY %s', entry.grantor::regrole) ELSE '' END AS by_whom
        FROM pg_auth_members AS entry
        WHERE entry.roleid::regrole::text IN (
                'aggregator_owner', 'aggregator_writer', 'aggregator_pruner', 'aggregator_reader'
            )
            AND entry.member::regrole::text IN (
                'aggregator_owner', 'aggregator_writer', 'aggregator_pruner', 'aggregator_reader'
            )
    LOOP
        EXECUTE format('REVOKE %s FROM %s %s CASCADE', given.role, given.member, given.by_whom);
    END LOOP;
END
$$;

-- Sessions. The programs ask for the same by themselves; this holds for whoever logs in by hand, and behind a pooler
-- that drops what a session asks for.

ALTER ROLE aggregator_owner SET search_path = public;
-- who waits for a table makes everybody behind it wait; `migrate` looks after that by itself
ALTER ROLE aggregator_owner SET lock_timeout = '10s';

ALTER ROLE aggregator_writer SET search_path = public;
ALTER ROLE aggregator_writer SET statement_timeout = '60s';
ALTER ROLE aggregator_writer SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE aggregator_writer SET timezone = 'UTC';

ALTER ROLE aggregator_pruner SET search_path = public;
ALTER ROLE aggregator_pruner SET statement_timeout = '60s';
ALTER ROLE aggregator_pruner SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE aggregator_pruner SET timezone = 'UTC';

ALTER ROLE aggregator_reader SET search_path = public;
ALTER ROLE aggregator_reader SET default_transaction_read_only = on;
ALTER ROLE aggregator_reader SET statement_timeout = '10s';
ALTER ROLE aggregator_reader SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE aggregator_reader SET timezone = 'UTC';

-- The schema.

DO $$
DECLARE
    other name;
BEGIN
    -- Up to PostgreSQL 14 everybody may make tables here by default. From here on those may who have some already.
    IF EXISTS (
        SELECT FROM pg_namespace AS namespace, aclexplode(namespace.nspacl) AS entry
        WHERE namespace.nspname = 'public' AND entry.grantee = 0 AND entry.privilege_type = 'CREATE'
    ) THEN
        FOR other IN
            SELECT DISTINCT role.rolname FROM pg_class AS relation JOIN pg_roles AS role ON role.oid = relation.relowner
            WHERE relation.relnamespace = 'public'::regnamespace AND NOT role.rolsuper
        LOOP
            EXECUTE format('GRANT CREATE ON SCHEMA public TO %I', other);
        END LOOP;
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    END IF;
END
$$;

GRANT USAGE, CREATE ON SCHEMA public TO aggregator_owner;
REVOKE ALL ON SCHEMA public FROM aggregator_writer, aggregator_pruner, aggregator_reader CASCADE;
GRANT USAGE ON SCHEMA public TO aggregator_writer, aggregator_pruner, aggregator_reader;

-- What the owner makes from here on can be used at once, but by the pruner; the next run takes away what is too much.

ALTER DEFAULT PRIVILEGES FOR ROLE aggregator_owner IN SCHEMA public
    REVOKE ALL ON TABLES FROM aggregator_writer, aggregator_pruner, aggregator_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE aggregator_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO aggregator_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE aggregator_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO aggregator_reader;

-- The tables that are there. In the database of an existing deployment they have another owner: they pass to ours,
-- with their indexes and constraints, and the owner before keeps all rights but that of changing them. What others
-- were granted stays as it is, and tables of other components are not touched.

SET LOCAL lock_timeout = '5s';

DO $$
DECLARE
    -- table, rights of the writer, of the pruner, of the reader
    rights CONSTANT text[] := ARRAY[
        -- the pruner locks rows, which takes the right to change some column: this one says nothing
        ['report', 'SELECT, INSERT, UPDATE',
            'SELECT (org_id, cluster, reported_at, last_checked_at), UPDATE (kafka_offset), DELETE', 'SELECT'],
        ['rule_hit', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT (org_id, cluster_id, created_at), DELETE', 'SELECT'],
        ['recommendation', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT (org_id, cluster_id, created_at), DELETE',
            'SELECT'],
        ['report_info', 'SELECT, INSERT, UPDATE', 'SELECT (org_id, cluster_id), DELETE', 'SELECT'],
        ['consumer_error', 'SELECT, INSERT, UPDATE, DELETE',
            'SELECT (topic, partition, topic_offset, consumed_at), DELETE', NULL],
        -- others write these; they move along when a cluster gets another organization
        ['cluster_rule_toggle', 'SELECT (cluster_id), UPDATE (org_id)', NULL, 'SELECT'],
        ['cluster_user_rule_disable_feedback', 'SELECT (cluster_id), UPDATE (org_id)', NULL, 'SELECT'],
        -- clusters with votes are not pruned
        ['cluster_rule_user_feedback', 'SELECT (cluster_id), UPDATE (org_id)', 'SELECT (cluster_id)', 'SELECT'],
        ['rule_disable', NULL, NULL, 'SELECT'],
        ['advisor_ratings', NULL, NULL, 'SELECT'],
        -- which schema it is, asked at the start
        ['migration_info', 'SELECT', 'SELECT', 'SELECT'],
        ['aggregator_migration', 'SELECT', 'SELECT', 'SELECT']
    ];
    roles CONSTANT text[] := ARRAY['aggregator_writer', 'aggregator_pruner', 'aggregator_reader'];
    entry text[];
    ours record;
BEGIN
    FOREACH entry SLICE 1 IN ARRAY rights LOOP
        SELECT relation.oid::regclass AS name, relation.relowner AS owner, role.rolsuper AS owner_is_superuser
        INTO ours
        FROM pg_class AS relation
        JOIN pg_roles AS role ON role.oid = relation.relowner
        WHERE relation.relnamespace = 'public'::regnamespace
            AND relation.relname = entry[1]
            AND relation.relkind IN ('r', 'p');
        CONTINUE WHEN NOT FOUND;
        IF ours.owner <> 'aggregator_owner'::regrole THEN
            EXECUTE format('ALTER TABLE %s OWNER TO aggregator_owner', ours.name);
            IF NOT ours.owner_is_superuser THEN
                EXECUTE format('GRANT ALL ON TABLE %s TO %s', ours.name, ours.owner::regrole);
            END IF;
        END IF;
        EXECUTE format(
            'REVOKE ALL ON TABLE %s FROM aggregator_writer, aggregator_pruner, aggregator_reader CASCADE', ours.name
        );
        FOR number IN 1..3 LOOP
            CONTINUE WHEN entry[number + 1] IS NULL;
            EXECUTE format('GRANT %s ON TABLE %s TO %I', entry[number + 1], ours.name, roles[number]);
        END LOOP;
    END LOOP;
END
$$;

-- The database. Where it is ours alone PUBLIC may do nothing; other roles with rights here may live by those of PUBLIC.

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_shdepend AS entry
        JOIN pg_database AS database ON database.oid = entry.dbid
        JOIN pg_roles AS role ON role.oid = entry.refobjid
        WHERE database.datname = current_database()
            AND entry.refclassid = 'pg_authid'::regclass
            AND NOT role.rolsuper
            AND role.oid <> database.datdba
            AND role.rolname NOT IN (
                'aggregator_owner', 'aggregator_writer', 'aggregator_pruner', 'aggregator_reader'
            )
    ) THEN
        EXECUTE format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        -- large objects belong to no table, and everybody may make some; the functions for it are a superuser's
        IF current_setting('is_superuser')::boolean THEN
            REVOKE EXECUTE ON FUNCTION
                lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea), lo_put(oid, bigint, bytea),
                lowrite(integer, bytea), lo_truncate(integer, integer), lo_truncate64(integer, bigint), lo_unlink(oid)
                FROM PUBLIC;
        END IF;
    END IF;
    EXECUTE format(
        'REVOKE ALL ON DATABASE %I FROM aggregator_writer, aggregator_pruner, aggregator_reader CASCADE',
        current_database()
    );
    EXECUTE format(
        'GRANT CONNECT ON DATABASE %I TO aggregator_owner, aggregator_writer, aggregator_pruner, aggregator_reader',
        current_database()
    );
    -- rows on their way to a table wait in a temporary one, in the consumer and in imports
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO aggregator_owner, aggregator_writer', current_database());
END
$$;

COMMIT;
