"""Certificates for tests: an authority and what it signs, as PEM files, made when they are needed."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True)
class Certificate:
    """Files of one certificate: itself with its chain, its key (PKCS #8), and both in one."""

    certificate: Path
    key: Path
    both: Path

    @property
    def secret(self) -> str:
        """A line of the key, by which it is found wherever it should not be."""
        return self.key.read_text().splitlines()[1]

    def encrypt_key(self, password: str) -> Path:
        """Return a file with the same key, encrypted."""
        key = load_pem_private_key(self.key.read_bytes(), None)
        encrypted = self.key.with_suffix(".encrypted.pem")
        encrypted.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
        )
        return encrypted


class Authority:
    """An authority that nobody knows; `certificate` is the file by which a client is made to know it."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(self, name: str, *identities: str) -> Certificate:
        """Sign a certificate for host names or addresses, in files that begin with `name`."""
        leaf = self._ca.issue_cert(*identities)
        # Kafka reads keys in no other form
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return Certificate(
            certificate=self._write(f"{name}.crt.pem", chain),
            key=self._write(f"{name}.key.pem", key),
            both=self._write(f"{name}.pem", key + chain),
        )

    def _write(self, name: str, content: bytes) -> Path:
        file = self._folder / name
        file.write_bytes(content)
        return file
