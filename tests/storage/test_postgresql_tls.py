"""TLS to PostgreSQL as both processes connect: whom they trust, how they are known, and what is said if it fails."""

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psycopg2.extensions
import pytest
import trustme
from peewee import Database, OperationalError

from api_service.deadline import limited_wait
from examples.demo.ports import free_port
from libaggregator.settings import DatabaseSettings, Secret
from libaggregator.storage.connections import open_reader, open_writer
from libaggregator.storage.faults import Fault, describe, fault_of, is_refused_for_good
from tests.support.api_process import REPORT, Api, fill
from tests.support.commands import CLI
from tests.support.deployment import fetch
from tests.support.network import Wire
from tests.support.processes import Processes
from tests.support.waiting import eventually

HOST = "db.example.org"
PASSWORD = "s3cr3t"
Open = Callable[[DatabaseSettings, str], Database]


class Party:
    """Those who have to trust each other: an authority, its files, and a server behind TLS."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.other_authority = trustme.CA()
        self._url = urlsplit(url)
        self.server = Wire(self._url.port or 0, self.certificate())

    def certificate(
        self, host: str = HOST, by: trustme.CA | None = None, until: datetime | None = None
    ) -> ssl.SSLContext:
        """Return what a server with a certificate for a host speaks."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        (by or self.authority).issue_cert(host, not_after=until).configure_cert(context)
        return context

    def demand_client_certificates(self) -> None:
        """Let nobody in but clients with a certificate of the authority."""
        context = self.certificate()
        context.verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(context)
        self.server.tls = context

    def client(self, by: trustme.CA) -> dict[str, str]:
        """Return the options of libpq for a client with a certificate."""
        certificate = by.issue_cert("reader@example.org")
        cert, key = self.folder / "client.pem", self.folder / "client.key"
        certificate.cert_chain_pems[0].write_to_path(cert)
        certificate.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return {"sslcert": str(cert), "sslkey": str(key)}

    def url(self, **options: str) -> str:
        """Return the URL that a deployment has, with further options of libpq."""
        trusted = self.folder / "authority.pem"
        self.authority.cert_pem.write_to_path(trusted)
        given = {"hostaddr": "127.0.0.1", "sslmode": "verify-full", "sslrootcert": str(trusted), **options}
        return f"postgresql://postgres:{PASSWORD}@{HOST}:{self.server.port}{self._url.path}?{urlencode(given)}"


@pytest.fixture
def party(tmp_path: Path, postgresql_url: str) -> Iterator[Party]:
    """Yield a server behind TLS whose certificate is right."""
    party = Party(tmp_path, postgresql_url)
    yield party
    party.server.close()


@pytest.fixture(params=[open_writer, open_reader], ids=["consumer", "API"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Yield how each process opens the database; the API does the waiting itself."""
    if request.param is open_reader:
        psycopg2.extensions.set_wait_callback(limited_wait(DatabaseSettings()))
    yield request.param
    psycopg2.extensions.set_wait_callback(None)


def connect(opened: Open, url: str) -> Database:
    database = opened(DatabaseSettings(url=Secret(url)), "tests")
    database.connect()
    return database


def refusal(opened: Open, url: str) -> str:
    """Return the line that says why there is no connection; it is an outage, which is waited out."""
    with pytest.raises(OperationalError) as raised:
        connect(opened, url)
    assert fault_of(raised.value) is Fault.OUTAGE
    # it may be mended on the server
    assert not is_refused_for_good(raised.value)
    line = describe(raised.value)
    assert PASSWORD not in line
    assert "\n" not in line
    return line


def test_a_server_of_the_right_authority_and_name_is_trusted(party: Party, opened: Open) -> None:
    database = connect(opened, party.url())
    assert database.connection().info.ssl_in_use
    assert database.execute_sql("SELECT 1").fetchall() == [(1,)]
    database.close()


def test_a_server_with_another_name_is_refused(party: Party, opened: Open) -> None:
    party.server.tls = party.certificate("other.example.org")
    assert f'certificate for "other.example.org" does not match host name "{HOST}"' in refusal(opened, party.url())


def test_a_server_of_another_authority_is_refused(party: Party, opened: Open) -> None:
    party.server.tls = party.certificate(by=party.other_authority)
    assert "certificate verify failed" in refusal(opened, party.url())


def test_a_certificate_that_has_expired_is_refused(party: Party, opened: Open) -> None:
    party.server.tls = party.certificate(until=datetime(2020, 1, 1, tzinfo=UTC))
    assert "certificate verify failed" in refusal(opened, party.url())


def test_a_server_without_tls_is_refused(party: Party, opened: Open, postgresql_url: str) -> None:
    plain = party.url().replace(str(party.server.port), str(urlsplit(postgresql_url).port))
    assert "server does not support SSL" in refusal(opened, plain)


def test_a_client_certificate_lets_in_and_none_or_another_one_does_not(party: Party, opened: Open) -> None:
    party.demand_client_certificates()
    database = connect(opened, party.url(**party.client(party.authority)))
    assert database.execute_sql("SELECT 1").fetchall() == [(1,)]
    database.close()
    assert "certificate required" in refusal(opened, party.url())
    assert "unknown ca" in refusal(opened, party.url(**party.client(party.other_authority)))


def test_a_file_that_is_missing_or_a_key_that_everybody_can_read_is_named(party: Party, opened: Open) -> None:
    missing = str(party.folder / "missing.pem")
    assert f'"{missing}" does not exist' in refusal(opened, party.url(sslrootcert=missing))
    client = party.client(party.authority)
    Path(client["sslkey"]).chmod(0o644)
    assert "has group or world access" in refusal(opened, party.url(**client))


def test_a_wrong_certificate_is_waited_out_by_both_processes_until_it_is_mended(
    party: Party, processes: Processes, postgresql_url: str
) -> None:
    fill(postgresql_url, REPORT)
    party.server.tls = party.certificate(by=party.other_authority)
    api = Api(processes, party.url())
    port = free_port()
    consumer = processes.start(
        "consumer",
        [*CLI, "run"],
        {
            "AGGREGATOR_DATABASE__URL": party.url(),
            "AGGREGATOR_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "AGGREGATOR_CONSUMER__ADMIN_PORT": str(port),
        },
    )
    for process, admin_port in ((api.process, api.admin_port), (consumer, port)):
        assert "certificate verify failed" in process.wait_for_log("database unavailable")
        readiness = fetch(admin_port, "/readyz")
        assert readiness.status == 503
        assert "certificate verify failed" in readiness.json["checks"]["database"]
        assert fetch(admin_port, "/livez").status == 200
    party.server.tls = party.certificate()
    for admin_port in (api.admin_port, port):
        eventually(lambda at=admin_port: fetch(at, "/readyz").json["checks"]["database"] == "ok", 20, "the database")
    assert api.wait_until_it_listens().get("organizations").json["organizations"] == [1]
    for process in (api.process, consumer):
        assert process.output.count("database unavailable") == 1
        assert PASSWORD not in process.output
