"""What PostgreSQL tells of the tables in the schema `public`: types, keys, indexes, owners, sizes, who is in the way.

Read from the catalogue, where a role also sees what it has no right to.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from peewee import Database

from libaggregator.storage.faults import DATABASE_ERRORS, Fault, describe, fault_of
from libaggregator.storage.models import WIDENED, AggregatorMigration, MigrationInfo

_COLUMNS = """
    SELECT relname, attname, format_type(atttypid, atttypmod),
        -- a trigger before each row that is inserted may fill it
        (attnotnull OR typnotnull) AND NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = attrelid AND tgtype & 7 = 7 AND tgenabled IN ('O', 'A')
        ),
        atthasdef OR attidentity <> '' OR typdefault IS NOT NULL
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
    WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
"""
_UNIQUE_KEYS = """
    SELECT relname, ARRAY(
        SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey::smallint[])
    )
    FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
    WHERE relnamespace = to_regnamespace('public') AND indisunique AND indimmediate AND indisvalid
        AND indpred IS NULL AND indexprs IS NULL AND indnkeyatts = indnatts
"""
_INDEX = """
    SELECT owner.relname, indisvalid AND indisready,
        indpred IS NULL AND indexprs IS NULL AND NOT indisunique AND amname = 'btree' AND NOT EXISTS (
            SELECT FROM unnest(indkey::smallint[], indclass::oid[], indcollation::oid[], indoption::smallint[])
                AS key (number, operators, order_of_texts, direction)
            JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number
            JOIN pg_opclass ON pg_opclass.oid = key.operators
            WHERE NOT opcdefault OR key.order_of_texts <> attcollation OR key.direction <> 0
        ),
        ARRAY(
        SELECT attname::text FROM unnest(indkey::smallint[]) WITH ORDINALITY AS key (number, place)
        JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number ORDER BY place
    )
    FROM pg_class AS relation
    LEFT JOIN pg_am ON pg_am.oid = relation.relam
    LEFT JOIN pg_index ON indexrelid = relation.oid
    LEFT JOIN pg_class AS owner ON owner.oid = indrelid
    WHERE relation.relname = %s AND relation.relnamespace = to_regnamespace('public')
"""
# what ALTER COLUMN ... TYPE refuses with 0A000; indexes, constraints, defaults and statistics it makes anew by itself
_USERS_OF_COLUMN = """
    SELECT DISTINCT CASE
        WHEN rewrite.rulename = '_RETURN'
            THEN CASE used_in.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || used_in.oid::regclass
        WHEN rewrite.oid IS NOT NULL THEN format('rule %%s on %%s', rewrite.rulename, used_in.oid::regclass)
        ELSE pg_describe_object(dependency.classid, dependency.objid, dependency.objsubid)
    END
    FROM pg_depend AS dependency
    JOIN pg_attribute AS attribute ON attribute.attrelid = refobjid AND attribute.attnum = refobjsubid
    LEFT JOIN pg_rewrite AS rewrite ON classid = 'pg_rewrite'::regclass AND rewrite.oid = objid
    LEFT JOIN pg_class AS used_in ON used_in.oid = rewrite.ev_class
    LEFT JOIN pg_attrdef AS formula ON classid = 'pg_attrdef'::regclass AND formula.oid = objid
    WHERE refclassid = 'pg_class'::regclass AND refobjid = to_regclass('public.' || %(table)s)
        AND attribute.attname = %(column)s
        AND (
            classid IN ('pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass)
            OR classid::regclass::text = 'pg_publication_rel'
            -- a generated column: its formula uses this one and belongs to another
            OR formula.adnum <> attribute.attnum
        )
    ORDER BY 1
"""
# what ALTER COLUMN ... TYPE makes again from its text, which may hold for the old type only
_MADE_AGAIN = """
    WITH used AS (
        SELECT classid, objid FROM pg_depend JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE refclassid = 'pg_class'::regclass AND refobjid = to_regclass('public.' || %(table)s)
            AND attname = %(column)s
    )
    SELECT 'constraint ' || quote_ident(conname), 'ALTER TABLE {trial} ADD ' || pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE contype IN ('c', 'x') AND conrelid = to_regclass('public.' || %(table)s)
        AND (oid IN (SELECT objid FROM used WHERE classid = 'pg_constraint'::regclass)
            OR conindid IN (SELECT objid FROM used WHERE classid = 'pg_class'::regclass))
    UNION ALL SELECT 'index ' || indexrelid::regclass,
        'CREATE INDEX ON {trial} USING ' || split_part(text, ' ON public.' || %(table)s || ' USING ', 2)
    FROM pg_index CROSS JOIN pg_get_indexdef(indexrelid) AS text
    WHERE indexrelid IN (SELECT objid FROM used WHERE classid = 'pg_class'::regclass)
        AND indexrelid NOT IN (SELECT conindid FROM pg_constraint)
        AND (indexprs IS NOT NULL OR indpred IS NOT NULL
            OR EXISTS (SELECT FROM pg_opclass WHERE oid = ANY (indclass::oid[]) AND NOT opcdefault))
    UNION ALL SELECT 'statistics ' || stxname, regexp_replace(
        pg_get_statisticsobjdef(oid), '^CREATE STATISTICS \\S+ (.*) FROM \\S+$',
        'CREATE STATISTICS {trial} \\1 FROM {trial}'
    )
    FROM pg_statistic_ext AS statistics
    WHERE oid IN (SELECT objid FROM used WHERE classid = 'pg_statistic_ext'::regclass)
        -- from version 14 on
        AND to_jsonb(statistics) ->> 'stxexprs' IS NOT NULL
    ORDER BY 1
"""
_TRIAL = "pg_temp.aggregator_trial"
_COLUMNS_OF_ROW_TYPE = """
    SELECT format('column %%s.%%s', attrelid::regclass, attname)
    FROM pg_attribute
    JOIN pg_class AS relation ON relation.oid = attrelid AND relation.relkind IN ('r', 'm', 'p')
    JOIN pg_type AS row_type ON atttypid IN (row_type.oid, row_type.typarray)
    WHERE row_type.typrelid = to_regclass('public.' || %s) AND NOT attisdropped
    ORDER BY 1
"""
_OWNERS = """
    SELECT relname, relkind, relowner::regrole::text, pg_has_role(relowner, 'USAGE'),
        EXISTS (SELECT FROM pg_inherits WHERE pg_class.oid IN (inhparent, inhrelid))
    FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relname = ANY (%s)
"""
_UNREADABLE = """
    SELECT relname, relowner::regrole::text FROM pg_class
    WHERE relnamespace = to_regnamespace('public') AND relname = ANY (%s) AND relkind IN ('r', 'p')
        AND NOT has_any_column_privilege(oid, 'SELECT')
    ORDER BY 1
"""
_SIZES = """
    SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
    WHERE relnamespace = to_regnamespace('public') AND relname = ANY (%s)
"""
_HOLDERS = """
    SELECT DISTINCT pid, coalesce(nullif(application_name, ''), backend_type, 'somebody')
    FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'relation' AND relation = to_regclass('public.' || %s) AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
    ORDER BY pid LIMIT 3
"""


_IS_TO_BE_REWRITTEN = """
    SELECT EXISTS (
        SELECT FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = to_regnamespace('public') AND (relname, attname) IN %s AND atttypid = 'integer'::regtype
    )
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its type, as the engine writes it, and what it takes."""

    kind: str
    is_required: bool
    """A row with NULL is refused."""
    has_default: bool
    """A row that does not name it has another value than NULL."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index, or whatever has its name: then `table` is None."""

    table: str | None
    columns: tuple[str, ...]
    is_valid: bool
    is_plain: bool
    """A btree of columns alone in their usual order, neither unique nor partial."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a table, with its long values, and of its indexes."""

    table: int
    indexes: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.table + self.indexes


def columns_of_tables(database: Database) -> dict[str, dict[str, Column]]:
    """Return each column of each table."""
    columns: dict[str, dict[str, Column]] = defaultdict(dict)
    for table, column, kind, is_required, has_default in database.execute_sql(_COLUMNS).fetchall():
        columns[table][column] = Column(kind, bool(is_required), bool(has_default))
    return columns


def column_types(database: Database) -> dict[str, dict[str, str]]:
    """Return the type of each column of each table, as PostgreSQL writes it."""
    return {
        table: {name: column.kind for name, column in columns.items()}
        for table, columns in columns_of_tables(database).items()
    }


def is_name_taken(database: Database, name: str) -> bool:
    """Whether a table, or anything else that has its name among tables, is called so."""
    statement = "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relname = %s)"
    ((taken,),) = database.execute_sql(statement, (name,)).fetchall()
    return bool(taken)


def is_to_be_rewritten(database: Database) -> bool:
    """Whether a table may still be written anew, by `0002_bigint`."""
    ((found,),) = database.execute_sql(_IS_TO_BE_REWRITTEN, (tuple(WIDENED.items()),)).fetchall()
    return bool(found)


def unique_keys(database: Database) -> dict[str, set[frozenset[str]]]:
    """Return the columns of each key that `ON CONFLICT` can name, by table."""
    keys: dict[str, set[frozenset[str]]] = defaultdict(set)
    for table, columns in database.execute_sql(_UNIQUE_KEYS).fetchall():
        keys[table].add(frozenset(columns))
    return keys


def index_named(database: Database, name: str) -> Index | None:
    """Return the index of this name, None if nothing has the name."""
    row = database.execute_sql(_INDEX, (name,)).fetchone()
    if row is None:
        return None
    table, is_valid, is_plain, columns = row
    return Index(table, tuple(columns), bool(is_valid), bool(is_plain))


def obstacles_to_type(database: Database, table: str, column: str) -> list[str]:
    """Return what keeps PostgreSQL from giving a column another type, by name: views, rules, triggers and the like."""
    users = database.execute_sql(_USERS_OF_COLUMN, {"table": table, "column": column}).fetchall()
    of_rows = database.execute_sql(_COLUMNS_OF_ROW_TYPE, (table,)).fetchall()
    return [f"{user} uses column {table}.{column}" for (user,) in users] + [
        f"{user} uses the row type of table {table}" for (user,) in of_rows
    ]


def obstacles_to_remaking(database: Database, table: str, column: str) -> list[str]:
    """Return what uses a column in a way that does not hold for `bigint`: constraints, indexes and the like.

    Each is tried on a temporary table without rows, in a transaction that is undone; without the right to make one
    all that there are count as being in the way.
    """
    parameters = {"table": table, "column": column}
    used = database.execute_sql(_MADE_AGAIN.format(trial=_TRIAL), parameters).fetchall()
    if not used:
        return []
    ((may_try,),) = database.execute_sql("SELECT has_database_privilege(current_database(), 'TEMPORARY')").fetchall()
    obstacles = []
    for name, statement in used:
        if not may_try:
            reason = "may not hold for bigint, which a role with TEMPORARY on the database can try"
        elif refusal := _refusal_of_trial(database, table, column, statement):
            reason = f"does not hold for bigint ({refusal})"
        else:
            continue
        obstacles.append(f"{name} on table {table} uses column {column} and {reason}: drop it, migrate, make it anew")
    return obstacles


def _refusal_of_trial(database: Database, table: str, column: str, statement: str) -> str | None:
    """Return why PostgreSQL can't make a column `bigint` beside what a statement makes, None if it can."""
    try:
        with database.atomic() as transaction:
            database.execute_sql(f"CREATE TEMPORARY TABLE aggregator_trial (LIKE {table})")
            database.execute_sql(statement)
            database.execute_sql(f"ALTER TABLE {_TRIAL} ALTER COLUMN {column} TYPE bigint")
            transaction.rollback()
    except DATABASE_ERRORS as error:
        if fault_of(error) is Fault.OUTAGE:
            raise
        return describe(error)
    return None


def obstacle_to_working(database: Database) -> str | None:
    """Return why `migrate` can't work in this session, None if it can."""
    ((is_replica, process),) = database.execute_sql("SELECT pg_is_in_recovery(), pg_backend_pid()").fetchall()
    if is_replica:
        return "this server is a replica, which can't be changed: use the primary"
    # a pooler tells a number of its own for the process of the server
    if process != database.connection().get_backend_pid():
        return (
            "the connection goes by a pooler, which may pass on each statement to another session, while the lock"
            " that keeps two runs apart belongs to one: use a direct connection to the server"
        )
    return None


def obstacles_to_looking(database: Database) -> list[str]:
    """Return the tables that tell how far a database is, if they are there and this role may not read them."""
    tables = [MigrationInfo._meta.table_name, AggregatorMigration._meta.table_name]
    return [
        f"the role {_role(database)} may not read table {table}, which belongs to {owner}"
        for table, owner in database.execute_sql(_UNREADABLE, (tables,)).fetchall()
    ]


def obstacles_to_altering(database: Database, tables: Iterable[str]) -> list[str]:
    """Return the tables that this role may not alter, with their owners, and those that have parts."""
    obstacles = []
    for table, kind, owner, may_alter, has_parts in sorted(database.execute_sql(_OWNERS, (list(tables),)).fetchall()):
        if not may_alter:
            obstacles.append(f"the role {_role(database)} may not alter table {table}, which belongs to {owner}")
        if kind != "r" or has_parts:
            obstacles.append(f"table {table} is partitioned or inherits, and can't be altered alone")
    return obstacles


def obstacles_to_creating(database: Database) -> list[str]:
    """Return that this role may not make tables and indexes in the schema `public`, if it may not."""
    ((may_create,),) = database.execute_sql("SELECT has_schema_privilege('public', 'CREATE')").fetchall()
    return [] if may_create else [f"the role {_role(database)} may not create anything in the schema public"]


def obstacles_to_recording(database: Database, table: str) -> list[str]:
    """Return that this role may not read and write the table of steps, if it is there and the role may not."""
    statement = (
        "SELECT relowner::regrole::text FROM pg_class"
        " WHERE oid = to_regclass('public.' || %s)"
        " AND NOT (has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'SELECT'))"
    )
    return [
        f"the role {_role(database)} may not write table {table}, which belongs to {owner}"
        for (owner,) in database.execute_sql(statement, (table,)).fetchall()
    ]


def sizes(database: Database, tables: Iterable[str]) -> dict[str, Size]:
    """Return the size of each table."""
    rows = database.execute_sql(_SIZES, (list(tables),)).fetchall()
    return {table: Size(size, indexes) for table, size, indexes in rows}


def holders(database: Database, table: str) -> list[str]:
    """Return some of the sessions that have a lock on a table."""
    rows = database.execute_sql(_HOLDERS, (table,)).fetchall()
    return [f"{name} (process {pid})" for pid, name in rows]


def _role(database: Database) -> str:
    ((name,),) = database.execute_sql("SELECT current_user").fetchall()
    return str(name)
