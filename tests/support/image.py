"""The image as a cluster has it: built by buildah without a daemon, run by runc with a read-only root.

The base comes from debootstrap and is kept in `.cache/image`. Everything needs root.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes import REPOSITORY, Process
from tests.support.programs import ProgramMissingError
from tests.support.topics import fresh_name

PROGRAMS = ("buildah", "debootstrap", "runc")
CACHE = (REPOSITORY / ".cache").resolve() / "image"
BASE = "localhost/aggregator-base"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
DATA_FOLDER = "/var/lib/aggregator"
# nobody knows this one, as on OpenShift
USER, GROUP = 123456, 0
BRANCH = "tried"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_BUILD_TIMEOUT = 900


@dataclass(frozen=True)
class Image:
    """A built image: what its configuration says (OCI image specification, `config`), and its files."""

    config: Mapping[str, Any]
    root: Path


def build_image() -> Image:
    """Build `deploy/Dockerfile` on a base of Debian, and return what came of it.

    Raises ProgramMissingError where that can't be done.
    """
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing or os.geteuid() != 0:
        raise ProgramMissingError("IMAGE", f"the image needs root and {', '.join(missing or PROGRAMS)}")
    if not _buildah("images", "--quiet", "--filter", f"reference={BASE}").strip():
        _make_base()
    facts = {"VERSION": version(), "AGGREGATOR_BUILD_BRANCH": BRANCH, "AGGREGATOR_BUILD_COMMIT": COMMIT}
    arguments = {"BASE_IMAGE": BASE, "SOURCE_DATE_EPOCH": "1795505585", **facts}
    command = ["bud", "--quiet", "--isolation", "chroot", "--pull-never", "--file", "deploy/Dockerfile"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    # pip finds its index as it does on this machine
    for file in (Path("/etc/ssl/certs"), Path("/etc/pip.conf")):
        command += ["--volume", f"{file}:{file}:ro"] if file.exists() else []
    identifier = _buildah(*command, ".").split()[-1]
    container = _buildah("from", "--pull-never", identifier).strip()
    inspected = json.loads(_buildah("inspect", "--type", "image", identifier))
    return Image(inspected["OCIv1"]["config"], Path(_buildah("mount", container).strip()))


def make_data_folder(parent: Path) -> Path:
    """Make an empty data folder with the owner and the rights that it has in the image, and return it."""
    folder = parent / "data"
    folder.mkdir()
    os.chown(folder, 10001, GROUP)
    folder.chmod(0o770)
    return folder


def remove_images() -> None:
    """Remove what `build_image` made, but for the base."""
    _buildah("rm", "--all")
    for identifier in _buildah("images", "--quiet", "--no-trunc", "--filter", "dangling=true").split():
        _buildah("rmi", identifier)


def version() -> str:
    """Return the version of this source tree."""
    setup = ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return setup["metadata"]["version"]


def _make_base() -> None:
    """Install a small Debian with Python, and make it an image."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, folder])
        for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder, leftover))
        container = _buildah("from", "scratch").strip()
        _buildah("add", "--quiet", container, folder, "/")
        _buildah("commit", "--quiet", "--rm", container, BASE)


def _buildah(*arguments: str) -> str:
    storage = ["--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run"), "--storage-driver", "vfs"]
    return _run(["buildah", *storage, *arguments])


def _run(command: Sequence[str]) -> str:
    result = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT
    )
    assert result.returncode == 0, f"{command} failed:\n{result.stdout[-5000:]}\n{result.stderr[-5000:]}"
    return result.stdout


@dataclass(frozen=True)
class Containers:
    """Runs commands of an image as a cluster would: user 123456:0, read-only root, no capabilities, limited memory.

    `/tmp` is empty and writable, `data` is the data folder; the network is that of this machine, so that brokers and
    databases of tests are reached on 127.0.0.1. `folder` is for logs.
    """

    image: Image
    folder: Path
    data: Path
    memory: int = 256 * 1024 * 1024
    system_calls: Sequence[str] = ()
    """Others fail with EPERM; empty: all are allowed."""
    started: list["Container"] = field(default_factory=list)

    def start(
        self, *command: str, settings: Mapping[str, str] | None = None, mounts: Mapping[Path, str] | None = None
    ) -> "Container":
        """Start a command; `settings` are environment variables, `mounts` are shown read-only, by their path here."""
        container = Container(fresh_name("container"), self, command, settings or {}, mounts or {})
        self.started.append(container)
        return container

    def close(self) -> None:
        """End all that still runs."""
        for container in self.started:
            container.close()


class Container:
    """A command that runs in the image; `process` is runc, which passes signals on and ends as the command does."""

    def __init__(
        self,
        name: str,
        containers: Containers,
        command: Sequence[str],
        settings: Mapping[str, str],
        mounts: Mapping[Path, str],
    ) -> None:
        self.name = name
        self._bundle = containers.folder / name
        self._bundle.mkdir()
        specification = _specification(containers, command, settings, mounts)
        (self._bundle / "config.json").write_text(json.dumps(specification))
        self.process = Process(
            name,
            ["runc", "run", "--bundle", str(self._bundle), name],
            self._bundle / "output.log",
        )

    @property
    def pid(self) -> int:
        """The process id of the command, as this machine sees it."""
        return int(json.loads(_run(["runc", "state", self.name]))["pid"])

    @property
    def cgroup(self) -> Path | None:
        """The folder of its memory control group, None where there are none."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text(encoding="ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            mount = {"memory": "/sys/fs/cgroup/memory", "": "/sys/fs/cgroup"}.get(controllers)
            if mount and (folder := Path(mount + path)).joinpath(_peak_file(folder)).exists():
                return folder
        return None

    @property
    def peak_memory(self) -> int:
        """The most bytes that it had at one time, all its processes together, with what it read and wrote of files."""
        folder = self.cgroup
        assert folder, "no control group for memory"
        return int((folder / _peak_file(folder)).read_text())

    def run_to_end(self, timeout: float = 60) -> str:
        """Wait until it has ended with 0 and return what it printed."""
        assert self.process.wait_exit(timeout) == 0, self.process.output
        return self.process.output

    def close(self) -> None:
        """End it, if it still runs, and take away what runc keeps of it."""
        if self.process.exit_code is None:
            subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, check=False)
            self.process.kill()


def _peak_file(folder: Path) -> str:
    return "memory.max_usage_in_bytes" if "/memory/" in str(folder) else "memory.peak"


def _specification(
    containers: Containers, command: Sequence[str], settings: Mapping[str, str], mounts: Mapping[Path, str]
) -> dict[str, Any]:
    """Return the `config.json` of the OCI runtime specification for a command of an image."""
    config = containers.image.config
    shown = [_bind(source, target, "ro") for source, target in mounts.items()]
    return {
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": USER, "gid": GROUP},
            "args": [*config.get("Entrypoint", []), *(command or config["Cmd"])],
            "env": [*config["Env"], *(f"{name}={value}" for name, value in settings.items())],
            "cwd": config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(containers.image.root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _tmpfs("/dev", "nosuid", "mode=755"),
            _tmpfs("/dev/shm", "nosuid", "nodev", "noexec", "mode=1777", "size=65536k"),
            _tmpfs("/tmp", "nosuid", "nodev", "mode=1777"),
            _bind(containers.data, DATA_FOLDER, "rw"),
            *shown,
        ],
        "linux": {
            "resources": {"memory": {"limit": containers.memory}},
            "cgroupsPath": f"/aggregator-tests/{fresh_name('group')}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            **_seccomp(containers.system_calls),
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }


def _seccomp(allowed: Sequence[str]) -> dict[str, Any]:
    if not allowed:
        return {}
    rules = [{"names": list(allowed), "action": "SCMP_ACT_ALLOW"}]
    return {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}}


def _tmpfs(path: str, *options: str) -> dict[str, Any]:
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def _bind(source: Path, target: str, mode: str) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "nosuid", mode]}
