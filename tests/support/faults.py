"""What can go wrong around two consumers: each fault lasts for a block, and is over and repaired after it."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event, Thread

import psycopg2

from tests.support.fault_run import FaultRun
from tests.support.kafka import ApacheKafka
from tests.support.kafka_proxy import OFFSET_COMMIT, PRODUCE, KafkaProxy
from tests.support.postgresql import PostgresqlServer

APPLICATION = "aggregator-consumer"
SERVER_OPTIONS = {"max_connections": "14", "superuser_reserved_connections": "0", "deadlock_timeout": "50ms"}


@dataclass(frozen=True)
class Parts:
    """The servers of a run, with a proxy between the consumers and the broker."""

    server: PostgresqlServer
    broker: ApacheKafka
    proxy: KafkaProxy


DatabaseFault = Callable[[FaultRun, PostgresqlServer], AbstractContextManager[None]]
BrokerFault = Callable[[FaultRun, Parts], AbstractContextManager[None]]
ConsumerFault = Callable[[FaultRun], AbstractContextManager[None]]


@contextlib.contextmanager
def stopped(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Shut PostgreSQL down as an operator does."""
    with run.fault("fast shutdown of PostgreSQL"):
        server.stop()
        yield
    server.start()


@contextlib.contextmanager
def crashed(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Shut PostgreSQL down at once."""
    with run.fault("immediate shutdown of PostgreSQL"):
        server.crash()
        yield
    server.start()


@contextlib.contextmanager
def killed(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Kill PostgreSQL."""
    with run.fault("SIGKILL of PostgreSQL"):
        server.kill()
        yield
    server.start()


@contextlib.contextmanager
def sessions_ended(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """End the consumers' sessions."""
    with run.fault("sessions ended by an administrator"):
        server.end_sessions(APPLICATION)
        yield


@contextlib.contextmanager
def read_only(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Make PostgreSQL a standby, which takes no writes."""
    with run.fault("PostgreSQL is a standby"):
        server.demote()
        yield
    server.promote()


@contextlib.contextmanager
def frozen(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Stop all processes of PostgreSQL."""
    with run.fault("SIGSTOP of PostgreSQL"), server.frozen():
        yield


@contextlib.contextmanager
def locked(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Lock the table that every batch begins with."""
    with run.fault("table locked by another session"), run.deployment.reports_locked():
        yield


@contextlib.contextmanager
def no_connection_left(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """End the consumers' sessions and take all connections that PostgreSQL gives."""
    with run.fault("max_connections reached"), contextlib.ExitStack() as taken:
        administrator = psycopg2.connect(server.admin_url)
        taken.callback(administrator.close)
        administrator.autocommit = True
        administrator.cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (APPLICATION,)
        )
        _take_connections(server.admin_url, taken)
        yield


@contextlib.contextmanager
def deadlocks(run: FaultRun, server: PostgresqlServer) -> Iterator[None]:
    """Lock reports one by one from the last cluster to the first, again and again."""
    stop = Event()
    thread = Thread(target=_lock_backwards, args=(run.deployment.database_url, stop), name="backwards")
    with run.fault("deadlocks"):
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextlib.contextmanager
def broker_killed(run: FaultRun, parts: Parts) -> Iterator[None]:
    """Kill Kafka."""
    with run.fault("SIGKILL of Kafka"):
        parts.broker.kill()
        yield
    parts.broker.start()


@contextlib.contextmanager
def broker_frozen(run: FaultRun, parts: Parts) -> Iterator[None]:
    """Stop Kafka's process."""
    with run.fault("SIGSTOP of Kafka"), parts.broker.frozen():
        yield


@contextlib.contextmanager
def offsets_held(run: FaultRun, parts: Parts) -> Iterator[None]:
    """Hold the connections on which offsets are committed, and cut them at the end."""
    with run.fault("offsets on their way to a broker that takes nothing"), parts.proxy.holding(OFFSET_COMMIT):
        yield


@contextlib.contextmanager
def letters_held(run: FaultRun, parts: Parts) -> Iterator[None]:
    """Hold the connections on which dead letters are sent, and cut them at the end."""
    with run.fault("letters on their way to a broker that takes nothing"), parts.proxy.holding(PRODUCE):
        yield


@contextlib.contextmanager
def connections_cut(run: FaultRun, parts: Parts) -> Iterator[None]:
    """Cut all connections to Kafka."""
    with run.fault("connections to Kafka cut"):
        parts.proxy.cut()
        yield


@contextlib.contextmanager
def one_killed(run: FaultRun) -> Iterator[None]:
    """Kill one consumer; another one comes in the end."""
    run.kill(run.random.choice(run.consumers))
    yield
    run.start_consumer()


@contextlib.contextmanager
def all_killed(run: FaultRun) -> Iterator[None]:
    """Kill all consumers; two others come in the end."""
    for consumer in list(run.consumers):
        run.kill(consumer)
    yield
    run.start_two()


@contextlib.contextmanager
def one_stopped(run: FaultRun) -> Iterator[None]:
    """End one consumer as an orchestrator does; another one comes in the end."""
    run.stop(run.random.choice(run.consumers))
    yield
    run.start_consumer()


@contextlib.contextmanager
def one_more(run: FaultRun) -> Iterator[None]:
    """Let one more consumer join, and leave in the end."""
    run.note("one consumer more")
    consumer = run.start_consumer()
    yield
    run.stop(consumer)


@contextlib.contextmanager
def one_asleep(run: FaultRun) -> Iterator[None]:
    """Stop a consumer's process from running."""
    consumer = run.random.choice(run.consumers)
    with run.fault(f"SIGSTOP of {consumer.process.name}"):
        consumer.process.signal(signal.SIGSTOP)
        yield
        consumer.process.signal(signal.SIGCONT)


DATABASE_FAULTS: dict[str, DatabaseFault] = {
    "stopped": stopped,
    "crashed": crashed,
    "killed": killed,
    "sessions ended": sessions_ended,
    "read-only": read_only,
    "frozen": frozen,
    "locked": locked,
    "no connection left": no_connection_left,
    "deadlocks": deadlocks,
}
BROKER_FAULTS: dict[str, BrokerFault] = {
    "killed": broker_killed,
    "frozen": broker_frozen,
    "offsets held": offsets_held,
    "letters held": letters_held,
    "connections cut": connections_cut,
}
CONSUMER_FAULTS: dict[str, ConsumerFault] = {
    "one killed": one_killed,
    "all killed": all_killed,
    "one stopped": one_stopped,
    "one more": one_more,
    "one asleep": one_asleep,
}


def _take_connections(url: str, taken: contextlib.ExitStack) -> None:
    """Connect until there is no connection left."""
    while True:
        try:
            connection = psycopg2.connect(url)
        except psycopg2.OperationalError:
            return
        taken.callback(connection.close)


def _lock_backwards(url: str, stop: Event) -> None:
    while not stop.is_set():
        try:
            connection = psycopg2.connect(url)
        except psycopg2.OperationalError:
            stop.wait(0.1)
            continue
        with contextlib.suppress(psycopg2.Error), contextlib.closing(connection):
            while not stop.is_set():
                _lock_all_backwards(connection)


def _lock_all_backwards(connection: "psycopg2.extensions.connection") -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT cluster FROM report ORDER BY cluster DESC")
        for (cluster,) in cursor.fetchall():
            cursor.execute("SELECT 1 FROM report WHERE cluster = %s FOR UPDATE", (cluster,))
