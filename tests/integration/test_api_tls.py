"""HTTPS: what the port speaks, which files are taken, and how a new certificate comes into use without a restart."""

import contextlib
import datetime
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from tests.support.api_process import CLUSTER, REPORT, Api, StartApi, api_request, fill, http_request
from tests.support.deployment import PREFIX
from tests.support.waiting import eventually

# before and after 2050 a certificate has its dates in two forms (RFC 5280, section 4.1.2.5)
FIRST_EXPIRY = datetime.datetime(2049, 6, 1, 12, 30, 15, tzinfo=datetime.UTC)
SECOND_EXPIRY = datetime.datetime(2051, 2, 3, tzinfo=datetime.UTC)


@dataclass
class Authority:
    """Issues certificates for 127.0.0.1, and makes clients that trust them."""

    authority: trustme.CA
    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        """The settings that name the two files."""
        return {
            "API__TLS_CERTIFICATE": str(self.folder / "current" / "tls.crt"),
            "API__TLS_PRIVATE_KEY": str(self.folder / "current" / "tls.key"),
        }

    def issue(self, version: str, expires: datetime.datetime, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        """Put a new pair into use, as Kubernetes does: in a folder of its own, to which a link is set at one go."""
        issued = self.authority.issue_cert("127.0.0.1", not_after=expires, key_type=kind)
        pair = self.folder / version
        pair.mkdir()
        (pair / "tls.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        (pair / "tls.key").write_bytes(issued.private_key_pem.bytes())
        self.use(version)

    def use(self, version: str) -> None:
        """Set the link to a folder."""
        (self.folder / "next").symlink_to(version)
        (self.folder / "next").replace(self.folder / "current")

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that checks the certificate and its name."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def connect(self, api: Api, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a connection."""
        plain = socket.create_connection(("127.0.0.1", api.port), timeout=20)
        try:
            return (context or self.client()).wrap_socket(
                plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            )
        except OSError:
            plain.close()
            raise

    def open(self, api: Api) -> http.client.HTTPSConnection:
        """Return a connection that keeps alive, not open yet."""
        return http.client.HTTPSConnection("127.0.0.1", api.port, timeout=20, context=self.client())

    def expiry(self, api: Api) -> datetime.datetime:
        """Return when the certificate runs out that a new connection is shown."""
        with self.connect(api) as connection:
            shown = connection.getpeercert()
        assert shown
        return datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), datetime.UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority and its first certificate, in use."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    made = Authority(trustme.CA(), folder)
    made.issue("first", FIRST_EXPIRY)
    return made


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def workers(request: pytest.FixtureRequest) -> str:
    """Return how many processes answer."""
    return str(request.param)


def _ask(connection: http.client.HTTPSConnection, path: str = "organizations") -> http.client.HTTPResponse:
    connection.request("GET", PREFIX + path)
    answer = connection.getresponse()
    answer.read()
    return answer


def _status(api: Api, authority: Authority) -> int:
    with contextlib.closing(authority.open(api)) as connection:
        return _ask(connection).status


def _read(connection: ssl.SSLSocket) -> bytes:
    """Read to the end, which must have been told (close_notify): else it raises."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


# what the port speaks


def test_the_api_speaks_https_and_the_admin_port_does_not(
    start_api: StartApi, sqlite_url: str, server: str, workers: str, authority: Authority
) -> None:
    api = start_api(fill(sqlite_url, REPORT), API__SERVER=server, API__WORKERS=workers, **authority.settings)
    assert f"https://127.0.0.1:{api.port}{PREFIX}" in api.process.wait_for_log("API started")
    with contextlib.closing(authority.open(api)) as connection:
        assert [_ask(connection).status for _ in range(5)] == [200] * 5
    assert authority.expiry(api) == FIRST_EXPIRY
    assert api.readiness().status == 200
    assert api.process.stop() == 0


def test_tls_1_2_and_newer_are_spoken_and_only_http_1_1(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server, **authority.settings).wait_until_it_listens()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = authority.client()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with authority.connect(api, context) as connection:
            assert connection.version() == version.name.replace("_", ".")
            assert connection.selected_alpn_protocol() == "http/1.1"
    old = authority.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)version|handshake failure"):
        authority.connect(api, old)


def test_large_bodies_go_both_ways_and_the_end_is_told(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    large = REPORT.replace("'{}'", "json_quote(hex(zeroblob(5000000)))")
    api = start_api(fill(sqlite_url, large), API__SERVER=server, **authority.settings).wait_until_it_listens()
    with authority.connect(api) as connection:
        connection.sendall(http_request("GET", f"{PREFIX}organizations/1/clusters/{CLUSTER}/reports"))
        assert len(_read(connection)) > 10_000_000
    body = b'{"clusters": ["' + CLUSTER.encode() + b'"' + b" " * 2_000_000 + b"]}"
    with authority.connect(api) as connection:
        request = api_request("POST", "organizations/1/clusters/reports", f"Content-Length: {len(body)}", body=body)
        connection.sendall(request)
        assert _read(connection).startswith(b"HTTP/1.1 200")


def test_requests_that_are_sent_at_once_are_all_answered(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server, **authority.settings).wait_until_it_listens()
    request = f"GET {PREFIX}organizations HTTP/1.1\r\nHost: x\r\nX-Filler: {'x' * 3000}\r\n\r\n".encode()
    with authority.connect(api) as connection:
        connection.sendall(request * 40 + http_request("GET", f"{PREFIX}info"))
        assert _read(connection).count(b"HTTP/1.1 200") == 41


@pytest.mark.parametrize(("size", "status"), [(200_000, b"200"), (1_000_000, b"431")])
def test_the_size_of_a_head_is_limited_as_it_is_without_tls(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority, size: int, status: bytes
) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server, **authority.settings).wait_until_it_listens()
    with authority.connect(api) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(http_request("GET", f"{PREFIX}info", f"X-Filler: {'x' * size}"))
        assert connection.recv(12).split()[1] == status


def test_who_speaks_plain_http_is_turned_away_without_a_traceback(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    api = start_api(fill(sqlite_url), API__SERVER=server, **authority.settings).wait_until_it_listens()
    for sent in (http_request("GET", f"{PREFIX}info"), b"\0" * 100, b"\x16\x03\x01\x00\x05hello"):
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as client:
            client.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1" not in client.recv(1000)
                while client.recv(1000):
                    pass
    gone = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    gone.close()
    assert _status(api, authority) == 200
    assert "Traceback" not in api.process.output
    assert "rror" not in api.process.output


@pytest.mark.long
def test_handshakes_that_never_end_hold_up_nobody_and_are_closed(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    settings = {"API__SERVER": server, "API__THREADS": "1", "API__IDLE_TIMEOUT": "1", **authority.settings}
    api = start_api(fill(sqlite_url), **settings).wait_until_it_listens()
    hello = _client_hello(authority)
    with contextlib.ExitStack() as clients:
        stuck = [
            clients.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=30)) for _ in range(40)
        ]
        for number, client in enumerate(stuck):
            client.sendall(hello[: number * 5])
        assert _status(api, authority) == 200
        for client in stuck:
            with contextlib.suppress(ConnectionResetError):
                while client.recv(1000):
                    pass


def test_a_handshake_that_comes_in_single_bytes_is_made(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    api = start_api(fill(sqlite_url, REPORT), API__SERVER=server, **authority.settings).wait_until_it_listens()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send() -> None:
            for byte in outgoing.read():
                client.send(bytes([byte]))

        def until_done(step: Callable[[], object]) -> object:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    send()
                    incoming.write(client.recv(1000))
                else:
                    send()
                    return result

        until_done(tls.do_handshake)
        tls.write(http_request("GET", f"{PREFIX}organizations"))
        assert str(until_done(tls.read)).startswith("b'HTTP/1.1 200")


def _client_hello(authority: Authority) -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = authority.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


# which files are taken


def _missing(files: Authority) -> str:
    (files.folder / "first" / "tls.crt").unlink()
    return "api.tls_certificate: {certificate}: No such file or directory"


def _folder_for_a_key(files: Authority) -> str:
    key = files.folder / "first" / "tls.key"
    key.unlink()
    key.mkdir()
    return "api.tls_private_key: {key}: Is a directory"


def _broken_certificate(files: Authority) -> str:
    (files.folder / "first" / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    return "api.tls_certificate: {certificate}: no certificate in PEM"


def _broken_key(files: Authority) -> str:
    (files.folder / "first" / "tls.key").write_text("key")
    return "api.tls_private_key: {key}: no private key in PEM"


def _key_of_another(files: Authority) -> str:
    other = files.authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    (files.folder / "first" / "tls.key").write_bytes(other.private_key_pem.bytes())
    return "api.tls_private_key: {key}: the key does not fit the certificate in {certificate}"


def _encrypted_key(files: Authority) -> str:
    file = files.folder / "first" / "tls.key"
    key = load_pem_private_key(file.read_bytes(), None)
    protection = serialization.BestAvailableEncryption(b"planted")
    form = serialization.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, protection))
    return "api.tls_private_key: {key}: the key is encrypted"


@pytest.mark.parametrize(
    "spoil", [_missing, _folder_for_a_key, _broken_certificate, _broken_key, _key_of_another, _encrypted_key]
)
def test_files_that_can_not_be_used_end_the_start_with_one_line(
    start_api: StartApi, sqlite_url: str, workers: str, authority: Authority, spoil: Callable[[Authority], str]
) -> None:
    says = spoil(authority)
    settings = authority.settings
    api = start_api(fill(sqlite_url), API__WORKERS=workers, **settings)
    assert api.process.wait_exit() == 2
    expected = says.format(certificate=settings["API__TLS_CERTIFICATE"], key=settings["API__TLS_PRIVATE_KEY"])
    assert [line for line in api.process.output.splitlines() if "rror" in line] == [f"error: {expected}"]


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ("API__TLS_CERTIFICATE", "api.tls_private_key: needed with api.tls_certificate"),
        ("API__TLS_PRIVATE_KEY", "api.tls_certificate: needed with api.tls_private_key"),
    ],
)
def test_one_setting_without_the_other_ends_the_start(
    start_api: StartApi, sqlite_url: str, authority: Authority, only: str, says: str
) -> None:
    file = authority.settings[only]
    api = start_api(fill(sqlite_url), **{only: file})
    assert api.process.wait_exit() == 2
    assert f"error: {says} ({file})" in api.process.output.splitlines()


# a new certificate


@pytest.mark.long
def test_a_new_certificate_is_used_without_a_restart_and_no_request_fails_meanwhile(
    start_api: StartApi, sqlite_url: str, server: str, workers: str, authority: Authority
) -> None:
    settings = {"API__SERVER": server, "API__WORKERS": workers, **authority.settings}
    api = start_api(fill(sqlite_url, REPORT), **settings).wait_until_it_listens()
    with contextlib.closing(authority.open(api)) as kept:
        assert _ask(kept).status == 200
        socket_before = kept.sock
        with _clients(api, authority) as answers:
            eventually(lambda: len(answers) > 50, 20, "requests")
            authority.issue("second", SECOND_EXPIRY, trustme.KeyType.RSA)
            api.process.wait_for_log("certificate read again", times=int(workers))
            eventually(lambda: {authority.expiry(api) for _ in range(20)} == {SECOND_EXPIRY}, 20, "the new certificate")
            seen = len(answers)
            eventually(lambda: len(answers) > seen + 50, 20, "more requests")
        assert set(answers) == {200}
        assert kept.sock is socket_before
        assert _ask(kept).status == 200
    assert api.process.stop() == 0
    assert "Traceback" not in api.process.output


def test_a_new_pair_that_can_not_be_used_is_told_once_and_the_one_before_goes_on(
    start_api: StartApi, sqlite_url: str, server: str, authority: Authority
) -> None:
    api = start_api(fill(sqlite_url, REPORT), API__SERVER=server, **authority.settings).wait_until_it_listens()
    broken = authority.folder / "broken"
    broken.mkdir()
    (broken / "tls.crt").write_bytes((authority.folder / "first" / "tls.crt").read_bytes())
    (broken / "tls.key").write_text("broken")
    authority.use("broken")
    line = api.process.wait_for_log("the new certificate can't be used")
    assert "tls.key: no private key in PEM" in line
    assert authority.expiry(api) == FIRST_EXPIRY
    authority.issue("second", SECOND_EXPIRY)
    api.process.wait_for_log("certificate read again")
    eventually(lambda: authority.expiry(api) == SECOND_EXPIRY, 20, "the new certificate")
    assert api.process.output.count("the new certificate can't be used") == 1


@pytest.mark.long
def test_a_key_that_granian_does_not_know_ends_the_start_and_not_a_running_api(
    start_api: StartApi, sqlite_url: str, authority: Authority
) -> None:
    url = fill(sqlite_url, REPORT)
    api = start_api(url, API__SERVER="granian", **authority.settings).wait_until_it_listens()
    _issue_for_p521(authority)
    line = api.process.wait_for_log("the new certificate can't be used")
    assert "tls.key: granian can't use it" in line
    assert authority.expiry(api) == FIRST_EXPIRY
    second = start_api(url, API__SERVER="granian", **authority.settings)
    assert second.process.wait_exit() == 2
    assert second.process.output.splitlines()[-1].startswith("error: api.tls_private_key: ")


def _issue_for_p521(authority: Authority) -> None:
    """Put a pair into use that OpenSSL knows and rustls does not."""
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, FIRST_EXPIRY.replace(year=2020), SECOND_EXPIRY)
    pem = serialization.Encoding.PEM
    pair = authority.folder / "p521"
    pair.mkdir()
    (pair / "tls.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (pair / "tls.key").write_bytes(secret)
    authority.use("p521")


@contextlib.contextmanager
def _clients(api: Api, authority: Authority) -> Iterator[list[int | str]]:
    """Have clients ask all the time, on kept connections and on new ones; yield the statuses, or what went wrong."""
    answers: list[int | str] = []
    ended = Event()

    def ask(keeps: bool) -> None:
        connection = authority.open(api)
        while not ended.is_set():
            try:
                answer = _ask(connection)
                answers.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                answers.append(repr(error))
                connection.close()
            if not keeps:
                connection.close()
        connection.close()

    threads = [Thread(target=ask, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()
