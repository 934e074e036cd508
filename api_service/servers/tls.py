"""The certificate that the API's port shows: read from files, and read again when they change."""

import ssl
import subprocess
import sys
import time
from pathlib import Path

import structlog

from api_service.settings import ApiSettings
from libaggregator.settings import SettingsError

_LOOK_SECONDS = 1.0
_TRIAL_SECONDS = 30.0

log = structlog.get_logger(__name__)


class _EncryptedKeyError(Exception):
    """The key is encrypted."""


class Certificate:
    """The pair of certificate and key in use; `certificate_file` may hold the chain too."""

    def __init__(self, certificate_file: Path, key_file: Path, server: str) -> None:
        """Read the files, for one of `api.server`; raises SettingsError with one line that names setting and file."""
        self.certificate_file = certificate_file
        self.key_file = key_file
        self._server = server
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._seen = self._tried = self._state_of_files()
        self.context = self._read()

    def look(self) -> bool:
        """Read the files again if they have changed; return whether there is another certificate in use.

        `context` is another one then, and connections that are open keep theirs. Can be called all the time: it looks
        once a second. Files that are not as they were at the last look may be only half written, and are left until
        they stay the same. A pair that can't be used is logged once, and the one before stays in use.
        """
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + _LOOK_SECONDS
        before, self._seen = self._seen, self._state_of_files()
        if self._seen != before or self._seen == self._tried:
            return False
        self._tried = self._seen
        try:
            self.context = self._read()
        except SettingsError as error:
            tell_unusable(error)
            return False
        log.info("certificate read again", file=str(self.certificate_file))
        return True

    def _read(self) -> ssl.SSLContext:
        context = _context(self.certificate_file, self.key_file)
        if self._server == "granian":
            _require_that_granian_can_use(self.certificate_file, self.key_file)
        return context

    def _state_of_files(self) -> tuple[object, ...]:
        """Return what differs after a file was written, or the link that leads to it was set to another one."""
        return tuple(map(_state_of_file, (self.certificate_file, self.key_file)))


def tell_unusable(reason: object) -> None:
    """Log why a new pair of certificate and key is not used."""
    log.error("the new certificate can't be used, the one before stays in use", reason=str(reason))


def certificate_of(settings: ApiSettings) -> Certificate | None:
    """Return the certificate that the settings name, None if the API speaks plain HTTP.

    Raises SettingsError with one line if there is one setting of the two, or the files can't be used.
    """
    certificate, key = settings.tls_certificate, settings.tls_private_key
    if not certificate and not key:
        return None
    if not key:
        raise SettingsError([f"api.tls_private_key: needed with api.tls_certificate ({certificate})"])
    if not certificate:
        raise SettingsError([f"api.tls_certificate: needed with api.tls_private_key ({key})"])
    return Certificate(Path(certificate), Path(key), settings.server)


def _context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return a context for servers, always a new one: one that is given a second pair can go on using the first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _require_readable("api.tls_certificate", certificate_file)
    _require_readable("api.tls_private_key", key_file)
    try:
        # says of this file alone whether there is a certificate in it
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate_file)
    except OSError:
        raise SettingsError([f"api.tls_certificate: {certificate_file}: no certificate in PEM"]) from None
    try:
        context.load_cert_chain(certificate_file, key_file, password=_refuse_password)
    except _EncryptedKeyError:
        raise SettingsError([f"api.tls_private_key: {key_file}: the key is encrypted"]) from None
    except OSError as error:
        raise SettingsError([_problem(error, certificate_file, key_file)]) from None
    return context


def _require_that_granian_can_use(certificate_file: Path, key_file: Path) -> None:
    """Raise SettingsError if granian can't, which knows fewer kinds than OpenSSL and would end its process."""
    if not _granian_uses(certificate_file, key_file):
        raise SettingsError(
            [
                f"api.tls_private_key: {key_file}: granian can't use it; RSA, ECDSA with P-256 or P-384 and Ed25519"
                " it can, and api.server = 'waitress' others"
            ]
        )


def _granian_uses(certificate_file: Path, key_file: Path) -> bool:
    command = [sys.executable, "-m", "api_service.servers.granian_trial", str(certificate_file), str(key_file)]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_TRIAL_SECONDS).returncode == 0  # noqa: S603
    except subprocess.TimeoutExpired:
        return False


def _require_readable(setting: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise SettingsError([f"{setting}: {file}: {error.strerror}"]) from None


def _refuse_password() -> str:
    # without it OpenSSL would ask whoever sits at the terminal
    raise _EncryptedKeyError


def _problem(error: OSError, certificate_file: Path, key_file: Path) -> str:
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return f"api.tls_private_key: {key_file}: the key does not fit the certificate in {certificate_file}"
    if reason.endswith(("TOO_SMALL", "TOO_WEAK")):
        return f"api.tls_certificate: {certificate_file}: {reason.lower().replace('_', ' ')}"
    return f"api.tls_private_key: {key_file}: no private key in PEM"


def _state_of_file(file: Path) -> object:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
