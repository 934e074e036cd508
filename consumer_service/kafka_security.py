"""How brokers are spoken to: TLS, certificates, and logging in (SASL)."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consumer_service.settings import KafkaSettings


def security_problems(settings: KafkaSettings) -> list[str]:
    """Return one line for each setting of this kind that no client could be made with, or that would do nothing."""
    return [*_login_problems(settings), *_tls_problems(settings)]


def security_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return what consumer and producer are told of TLS and of logging in.

    Files are named, not read, so that a certificate that was renewed is used from the next connection on. kafka-python
    takes nothing older than TLS 1.2, and the authorities of the system if none are named.
    """
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        options |= {
            "ssl_check_hostname": True,
            "ssl_cafile": settings.ssl_cafile or None,
            "ssl_certfile": settings.ssl_certfile or None,
            "ssl_keyfile": settings.ssl_keyfile or None,
            # also if it is empty: without any, OpenSSL asks the terminal for it and waits
            "ssl_password": settings.ssl_password.reveal(),
        }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": _sasl_name(settings),
            "sasl_plain_password": settings.sasl_password.reveal(),
        }
    return options


def _sasl_name(settings: KafkaSettings) -> str:
    """Return the user as its mechanism sends it: RFC 5802 escapes two characters, kafka-python 3.0.12 none."""
    if settings.sasl_mechanism == "PLAIN":
        return settings.sasl_username
    return settings.sasl_username.replace("=", "=3D").replace(",", "=2C")


def _login_problems(settings: KafkaSettings) -> list[str]:
    protocol = settings.security_protocol
    if not protocol.startswith("SASL"):
        # given for nothing: the brokers would be spoken to without a login
        return _given(settings, ("sasl_mechanism", "sasl_username", "sasl_password"), "SASL_SSL or SASL_PLAINTEXT")
    needed = {"sasl_username": settings.sasl_username, "sasl_password": settings.sasl_password.reveal()}
    problems = [f"kafka.{name}: needed with {protocol}" for name, value in needed.items() if not value]
    # a message of PLAIN is user and password with NUL between them
    return problems + [f"kafka.{name}: has a NUL byte" for name, value in needed.items() if "\0" in value]


def _tls_problems(settings: KafkaSettings) -> list[str]:
    if not settings.security_protocol.endswith("SSL"):
        return _given(settings, ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password"), "SSL or SASL_SSL")
    if problems := [
        f"kafka.{name}: can't be read: {file} ({problem})"
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
        if (file := getattr(settings, name)) and (problem := _reading_problem(file))
    ]:
        return problems
    if settings.ssl_cafile and not _has_certificates(settings.ssl_cafile):
        problems.append(f"kafka.ssl_cafile: no PEM file with certificates: {settings.ssl_cafile}")
    return problems + _client_certificate_problems(settings)


def _client_certificate_problems(settings: KafkaSettings) -> list[str]:
    certificate, key = settings.ssl_certfile, settings.ssl_keyfile or settings.ssl_certfile
    if not certificate:
        return [
            f"kafka.ssl_certfile: needed with kafka.{name}"
            for name in ("ssl_keyfile", "ssl_password")
            if _is_given(settings, name)
        ]
    if not _has_certificates(certificate):
        return [f"kafka.ssl_certfile: no PEM file with a certificate: {certificate}"]
    password = settings.ssl_password.reveal()
    try:
        ssl.create_default_context().load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            return [f"kafka.ssl_keyfile: not the key of the certificate in {certificate}: {key}"]
        if "ENCRYPTED" in Path(key).read_text(encoding="utf-8", errors="replace"):
            return [f"kafka.ssl_password: {'does not fit' if password else 'needed for'} the encrypted key in {key}"]
        explained = f" ({reason})" if reason else ""
        return [f"kafka.ssl_keyfile: no PEM file with a key for {certificate}: {key}{explained}"]
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


def _given(settings: KafkaSettings, names: Sequence[str], protocols: str) -> list[str]:
    """Return a line for each of these settings that is not its default."""
    return [
        f"kafka.{name}: needs kafka.security_protocol {protocols}, got {settings.security_protocol}"
        for name in names
        if _is_given(settings, name)
    ]


def _is_given(settings: KafkaSettings, name: str) -> bool:
    return bool(getattr(settings, name) != getattr(KafkaSettings(), name))
