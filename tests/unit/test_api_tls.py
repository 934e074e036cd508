"""When the files of a certificate are read again (`api_service/servers/tls.py`)."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from api_service.servers import tls
from api_service.servers.tls import Certificate, certificate_of
from api_service.settings import ApiSettings

AUTHORITY = trustme.CA()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at each call, not once a second."""
    monkeypatch.setattr(tls, "_LOOK_SECONDS", 0.0)


def _issue(year: int) -> tuple[bytes, bytes]:
    issued = AUTHORITY.issue_cert("127.0.0.1", not_after=datetime(year, 1, 2, 3, 4, 5, tzinfo=UTC))
    return issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()


def _in_use(folder: Path) -> tuple[Certificate, Path, Path]:
    certificate_file, key_file = folder / "tls.crt", folder / "tls.key"
    certificate, key = _issue(2040)
    certificate_file.write_bytes(certificate)
    key_file.write_bytes(key)
    return Certificate(certificate_file, key_file, "waitress"), certificate_file, key_file


def test_files_that_stay_the_same_are_read_once(tmp_path: Path) -> None:
    certificate, _, _ = _in_use(tmp_path)
    context = certificate.context
    assert [certificate.look() for _ in range(5)] == [False] * 5
    assert certificate.context is context


def test_a_pair_of_which_one_file_is_written_later_is_no_error(tmp_path: Path) -> None:
    in_use, certificate_file, key_file = _in_use(tmp_path)
    context = in_use.context
    certificate, key = _issue(2055)
    with capture_logs() as logs:
        certificate_file.write_bytes(certificate)
        assert not in_use.look()
        key_file.write_bytes(key)
        assert not in_use.look()
        assert in_use.look()
        assert not in_use.look()
    assert [entry["event"] for entry in logs] == ["certificate read again"]
    assert in_use.context is not context


def test_files_that_are_away_are_told_once_and_change_nothing(tmp_path: Path) -> None:
    in_use, certificate_file, _ = _in_use(tmp_path)
    context = in_use.context
    certificate_file.unlink()
    with capture_logs() as logs:
        assert [in_use.look() for _ in range(5)] == [False] * 5
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert f"api.tls_certificate: {certificate_file}: No such file or directory" in logs[0]["reason"]
    assert in_use.context is context


def test_both_can_be_in_one_file(tmp_path: Path) -> None:
    certificate, key = _issue(2040)
    file = tmp_path / "tls.pem"
    file.write_bytes(key + certificate)
    found = certificate_of(ApiSettings(tls_certificate=str(file), tls_private_key=str(file)))
    assert found is not None
