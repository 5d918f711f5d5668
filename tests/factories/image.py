"""The image, built by buildah and run without an engine much as ``docker run --read-only`` would.

What runs is process 1 of a namespace of its own and sees the image's files, which nobody can write,
with a new /proc, /sys and /dev. It has the image's user, environment and command, no capability and
no way to gain one. Its network is this machine's, so a server's port is one here.

Does not: limit memory or system calls, keep an image, or work without root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

from factories.pacs import free_port
from factories.servers import is_ready

REPOSITORY = Path(__file__).parents[2]
BASE_TOOL = REPOSITORY.parent / "shared" / "tools" / "base-image"
"""Makes a stand-in for the base image, for machines that reach no image registry."""

BASE = "docker.io/library/python:3.11-slim"
BUILD_WITHIN_S = 800
READY_WITHIN_S = 60
END_WITHIN_S = 60

_PACKAGE_INDICES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")

_ENTER = """
set -eu
root=$1; user=$2; mounts=$3; shift 3
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o nosuid,noexec,mode=755,size=64k tmpfs "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=64m tmpfs "$root/dev/shm"
echo "$mounts" | while IFS=: read -r there here; do
  if [ -n "$here" ]; then mount --bind "$here" "$root$there"; fi
done
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups \\
  --bounding-set=-all --no-new-privs --pdeathsig=KILL env -i "$@"
"""


@dataclass(frozen=True, slots=True)
class Image:
    """An image as buildah has it."""

    identity: str
    config: dict[str, Any]
    """``User``, ``Env``, ``Entrypoint``, ``Cmd``, ``Healthcheck``, ``Labels``, ``ExposedPorts``."""
    layers_bytes: tuple[int, ...]
    """Unpacked, the base image's first: what ``docker images`` adds up."""

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    @property
    def command(self) -> list[str]:
        """What runs where nothing else is asked for."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]


@dataclass(frozen=True, slots=True)
class Container:
    """An image's files, ``root``, and what may be run in them."""

    image: Image
    root: Path

    def root_bytes(self) -> int:
        """Of all files, unpacked; one with several names counts once."""
        found = (path.lstat() for path in self.root.rglob("*"))
        files = {(one.st_dev, one.st_ino): one.st_size for one in found if S_ISREG(one.st_mode)}
        return sum(files.values())

    def line(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[str, Path] | None = None,
    ) -> list[str]:
        """What starts ``command``, or the image's own, in the container.

        ``environment`` is added to the image's; ``mounts`` are folders of it, in whose place it
        sees folders of this machine, which can be written. What is started, by this machine's
        root, is ``unshare``; the process itself is its only child.
        """
        variables = self.image.environment | dict(environment or {})
        shown = "\n".join(f"{there}:{here}" for there, here in (mounts or {}).items())
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
            *("sh", "-c", _ENTER, "sh", str(self.root), self.image.config["User"], shown),
            *(f"{name}={value}" for name, value in variables.items()),
            *(self.image.command if command is None else command),
        ]

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[str, Path] | None = None,
        *,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` to its end, however it ends."""
        return subprocess.run(
            self.line(command, environment, mounts),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A container's server that has become ready."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    ready_s: float
    """From the start of everything to the first 200 of /readyz."""

    @property
    def pid(self) -> int:
        """Of the container's first process, on this machine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text(encoding="utf-8"))

    def end(self) -> int:
        """SIGTERM, as an engine sends it; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(END_WITHIN_S)


@contextmanager
def serving(container: Container, **settings: object) -> Iterator[Server]:
    """The container's own command, as soon as it is ready, with ``settings`` of the service."""
    port = free_port()
    environment = {f"CHESTXRAY_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.NamedTemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            container.line(environment=environment | {"CHESTXRAY_PORT": str(port)}),
            stdout=log,
            stderr=log,
        )
        try:
            while not is_ready(port):
                told = Path(log.name).read_text(encoding="utf-8")
                assert process.poll() is None, told
                assert time.perf_counter() - began < READY_WITHIN_S, told
                time.sleep(0.005)
            yield Server(process, port, Path(log.name), time.perf_counter() - began)
        finally:
            process.kill()  # and with it what it has started
            process.wait()


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds images in a folder that is gone afterwards, layers and all."""

    environment: dict[str, str]

    def build(self, target: str | None = None, **arguments: str) -> Image:
        """The Dockerfile's ``target``, or its last; ``arguments`` as --build-arg."""
        command = ["build", "--pull-never", "--layers", "--format", "docker", "--quiet"]
        if target is not None:
            command += ["--target", target]
        indices = {name: os.environ[name] for name in _PACKAGE_INDICES if name in os.environ}
        for name, value in (indices | arguments).items():
            command += ["--build-arg", f"{name}={value}"]
        return self.inspect(self._buildah(*command, str(REPOSITORY)).splitlines()[-1])

    def inspect(self, name: str) -> Image:
        told = json.loads(self._buildah("inspect", "--type", "image", name))
        layers = json.loads(told["Manifest"])["layers"]
        return Image(
            told["FromImageID"],
            told["Docker"]["config"],
            tuple(layer["size"] for layer in layers),
        )

    @contextmanager
    def container(self, image: Image) -> Iterator[Container]:
        name = self._buildah("from", "--pull-never", image.identity)
        try:
            yield Container(image, Path(self._buildah("mount", name)))
        finally:
            self._buildah("rm", name)

    def _buildah(self, *arguments: str) -> str:
        return _output(["buildah", *arguments], self.environment)


def what_is_missing() -> str | None:
    """Why no image can be built here, if that is so."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [name for name in ("buildah", "unshare", "setpriv") if not shutil.which(name)]:
        return f"needs {', '.join(missing)}"
    if _has_base() or (BASE_TOOL.exists() and shutil.which("debootstrap")):
        return None
    return f"needs {BASE}, or debootstrap and {BASE_TOOL.name} to make a stand-in"


@contextmanager
def builder() -> Iterator[Builder]:
    """Where images are built; this machine's base image is made first where it is missing."""
    store = json.loads(_output(["buildah", "info"], dict(os.environ)))["store"]
    if not _has_base():
        _output([str(BASE_TOOL), BASE], os.environ | {"STORAGE_DRIVER": store["GraphDriverName"]})
    with _in_memory() as folder:
        settings = folder / "storage.conf"
        settings.write_text(
            f'[storage]\ndriver = "{store["GraphDriverName"]}"\n'
            f'graphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
            f'[storage.options]\nadditionalimagestores = ["{store["GraphRoot"]}"]\n',
            encoding="utf-8",
        )
        environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(settings),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(folder),
        }
        try:
            yield Builder(environment)
        finally:  # a build that failed leaves containers, and so mounts
            _output(["buildah", "rm", "--all"], environment)


@contextmanager
def _in_memory() -> Iterator[Path]:
    """A folder in memory, since some disks take half a minute to delete a build."""
    with tempfile.TemporaryDirectory(prefix="chestxray-image-") as folder:
        mounting = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder]
        _output(mounting, dict(os.environ))
        try:
            yield Path(folder)
        finally:
            _output(["umount", folder], dict(os.environ))


def _has_base() -> bool:
    asked = ["buildah", "inspect", "--type", "image", BASE]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _output(command: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_WITHIN_S,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()
