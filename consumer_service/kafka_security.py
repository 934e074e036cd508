"""How brokers are spoken to: TLS, certificates, and logging in (SASL)."""

from collections.abc import Sequence
from typing import Any

from consumer_service.settings import KafkaSettings
from consumer_service.tls_files import tls_file_problems


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
    return tls_file_problems("kafka", settings)


def _given(settings: KafkaSettings, names: Sequence[str], protocols: str) -> list[str]:
    """Return a line for each of these settings that is not its default."""
    return [
        f"kafka.{name}: needs kafka.security_protocol {protocols}, got {settings.security_protocol}"
        for name in names
        if _is_given(settings, name)
    ]


def _is_given(settings: KafkaSettings, name: str) -> bool:
    return bool(getattr(settings, name) != getattr(KafkaSettings(), name))
