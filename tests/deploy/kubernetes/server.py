"""A Kubernetes API server with its etcd, on loopback: it takes and judges objects, and nothing acts on them."""

import os
import secrets
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from examples.demo.ports import free_port
from tests.support.processes import REPOSITORY, Process
from tests.support.programs import ProgramMissingError
from tests.support.waiting import eventually

PROGRAMS = REPOSITORY / ".cache" / "kubernetes"
DEFINITIONS = PROGRAMS / "definitions"
START_TIMEOUT = 120.0


class ApiServer:
    """One API server, from `start()` to `stop()`; `folder` is for its data."""

    def __init__(self, folder: Path) -> None:
        """Raise ProgramMissingError if the programs are not there."""
        if not (PROGRAMS / ".built").is_file():
            raise ProgramMissingError("KUBERNETES", "kube-apiserver is not built: `make test-kubernetes` does it")
        self._folder = folder
        self._port = free_port()
        self._token = secrets.token_hex()
        self._started: list[Process] = []

    def start(self) -> None:
        """Start both, wait until objects are taken, and define the resources of the operators that overlays use."""
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        tokens, key = self._folder / "tokens.csv", self._folder / "accounts.pem"
        tokens.write_text(f"{self._token},tests,tests,system:masters\n", encoding="utf-8")
        key.write_bytes(_private_key())
        self._run(
            "kube-apiserver",
            f"--etcd-servers={client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._folder}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            # pods are judged without the controller that would make tokens for them
            "--disable-admission-plugins=ServiceAccount",
        )
        eventually(self._is_ready, START_TIMEOUT, "the API server is ready")
        self.kubectl("apply", "--server-side", "--filename", str(DEFINITIONS))
        self.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all")

    def stop(self) -> None:
        """End both."""
        for process in reversed(self._started):
            process.signal(signal.SIGTERM)
        for process in self._started:
            process.kill()

    def make_restricted_namespace(self, name: str) -> None:
        """Make a namespace whose pods have to be `restricted`, with warnings for what would make others."""
        levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, *levels)

    def kubectl(self, *arguments: str, document: str = "") -> str:
        """Run kubectl and return what it printed; AssertionError with that if it fails or warns."""
        run = self.try_kubectl(*arguments, document=document)
        assert run.returncode == 0, run.stderr
        assert not run.stderr, run.stderr
        return run.stdout

    def try_kubectl(self, *arguments: str, document: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl, a warning is an error to it, and return how it ended."""
        return subprocess.run(
            [
                PROGRAMS / "kubectl",
                f"--server=https://127.0.0.1:{self._port}",
                f"--certificate-authority={self._certificate}",
                f"--token={self._token}",
                "--warnings-as-errors",
                *arguments,
            ],
            input=document,
            capture_output=True,
            text=True,
            check=False,
            # neither a proxy nor settings of whoever runs the tests
            env={"HOME": str(self._folder), "PATH": os.defpath},
        )

    def try_apply(self, document: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Apply manifests as strictly as the server can, and return how it ended."""
        return self.try_kubectl(
            "apply", "--server-side", "--validate=strict", *options, "--filename=-", document=document
        )

    @property
    def _certificate(self) -> Path:
        return self._folder / "apiserver.crt"

    def _run(self, program: str, *options: str) -> None:
        log = self._folder / f"{program}.log"
        self._started.append(Process(program, [str(PROGRAMS / program), *options], log))

    def _is_ready(self) -> bool:
        for process in self._started:
            if process.exit_code is not None:
                raise RuntimeError(f"{process.name} has ended: {process.output[-2000:]}")
        if not self._certificate.is_file():
            return False
        url = f"https://127.0.0.1:{self._port}/readyz"
        context = ssl.create_default_context(cafile=self._certificate)
        # whatever proxy the environment names
        handlers: Sequence[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
        ]
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self._token}"})
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def _private_key() -> bytes:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
