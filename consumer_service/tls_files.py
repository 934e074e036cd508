"""Files of certificates and keys that a client shows to its broker, or checks it by."""

import ssl
from pathlib import Path
from typing import Protocol

from libaggregator.settings import Secret


class NamesTlsFiles(Protocol):
    """A section of the settings that names such files."""

    @property
    def ssl_cafile(self) -> str: ...  # noqa: D102 - the setting says it
    @property
    def ssl_certfile(self) -> str: ...  # noqa: D102
    @property
    def ssl_keyfile(self) -> str: ...  # noqa: D102
    @property
    def ssl_password(self) -> Secret: ...  # noqa: D102


def tls_file_problems(section: str, settings: NamesTlsFiles) -> list[str]:
    """Return one line for each setting of this section with which no connection could be made."""
    if problems := [
        f"{section}.{name}: can't be read: {file} ({problem})"
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
        if (file := getattr(settings, name)) and (problem := _reading_problem(file))
    ]:
        return problems
    if settings.ssl_cafile and not _has_certificates(settings.ssl_cafile):
        problems.append(f"{section}.ssl_cafile: no PEM file with certificates: {settings.ssl_cafile}")
    return problems + _client_certificate_problems(section, settings)


def _client_certificate_problems(section: str, settings: NamesTlsFiles) -> list[str]:
    certificate, key = settings.ssl_certfile, settings.ssl_keyfile or settings.ssl_certfile
    if not certificate:
        return [
            f"{section}.ssl_certfile: needed with {section}.{name}"
            for name, value in (("ssl_keyfile", settings.ssl_keyfile), ("ssl_password", settings.ssl_password.reveal()))
            if value
        ]
    if not _has_certificates(certificate):
        return [f"{section}.ssl_certfile: no PEM file with a certificate: {certificate}"]
    password = settings.ssl_password.reveal()
    try:
        ssl.create_default_context().load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            return [f"{section}.ssl_keyfile: not the key of the certificate in {certificate}: {key}"]
        if "ENCRYPTED" in Path(key).read_text(encoding="utf-8", errors="replace"):
            return [
                f"{section}.ssl_password: {'does not fit' if password else 'needed for'} the encrypted key in {key}"
            ]
        explained = f" ({reason})" if reason else ""
        return [f"{section}.ssl_keyfile: no PEM file with a key for {certificate}: {key}{explained}"]
    return []


def _has_certificates(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def _reading_problem(file: str) -> str | None:
    try:
        with Path(file).open("rb") as opened:
            opened.read(1)
    except OSError as error:
        return error.strerror
    return None
