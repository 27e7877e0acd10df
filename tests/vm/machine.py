"""A machine under test: this host's files under a kernel of their own, with all controllers of control groups.

It needs qemu, and Debian's archive for a kernel; it has no network and changes nothing here.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

QEMU = "qemu-system-x86_64"
KERNEL = "linux-image-amd64"
# In the order in which they depend on each other.
# fmt: off
MODULES = [
    "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
    "netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "overlay",
]
# fmt: on
MEMORY = "1024"
"""Megabytes."""
BOOT = "console=ttyS0 panic=-1 edd=off quiet mitigations=off systemd.show_status=0 systemd.unified_cgroup_hierarchy=1"
SERVICE = """\
[Unit]
DefaultDependencies=no
After=dbus.socket systemd-journald.socket

[Service]
Type=exec
ExecStart={command}
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS0
Environment=PYTHONPATH={path}
ExecStopPost=systemctl poweroff -ff
"""
TARGET = """\
[Unit]
Requires=dbus.socket guest.service
After=dbus.socket systemd-journald.socket basic.target
"""


class Machine:
    """A kernel, unpacked in a folder, and what it is to run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        version = _kernel_version()
        self._unpack(version.removeprefix("linux-image-"), [version, "busybox-static"])

    def run(self, command: Sequence[str], path: str, *, timeout: float) -> str:
        """Boot it, run `command` there as root with this PYTHONPATH, and return what that has printed.

        Raises `TimeoutExpired`; the machine's console is then in `console`.
        """
        service = SERVICE.format(command=" ".join(command), path=path)
        (self._folder / "root" / "guest.service").write_text(service)
        (self._folder / "root" / "guest.target").write_text(TARGET)
        printed = self._folder / "printed"
        subprocess.run(self._qemu(self._initrd(), printed), stdin=subprocess.DEVNULL, timeout=timeout, check=True)
        return printed.read_text(errors="replace")

    @property
    def console(self) -> str:
        """What the kernel, systemd and the command's standard error have said."""
        return (self._folder / "console").read_text(errors="replace")

    def _unpack(self, version: str, packages: list[str]) -> None:
        root, unpacked = self._folder / "root", self._folder / "unpacked"
        # Without apt's own user, which may not write here.
        fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages]
        subprocess.run(fetch, cwd=self._folder, check=True, capture_output=True)
        for package in self._folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, unpacked], check=True)
            package.unlink()
        for name in ("bin", "modules", "proc", "low", "above", "new", "dev"):
            (root / name).mkdir(parents=True)
        shutil.copy(unpacked / "bin" / "busybox", root / "bin")
        shutil.copy(Path(__file__).with_name("init.sh"), root / "init")
        (root / "init").chmod(0o755)
        shutil.move(unpacked / "boot" / f"vmlinuz-{version}", self._folder / "kernel")
        self._take_modules(unpacked / "lib" / "modules", root / "modules")
        shutil.rmtree(unpacked)

    def _take_modules(self, modules: Path, taken: Path) -> None:
        found = [next(modules.rglob(f"{name}.ko*"), None) for name in MODULES]
        present = [file for file in found if file is not None]  # some are built in, in some kernels
        for file in present:
            shutil.copy(file, taken)
        (taken / "order").write_text("\n".join(file.name for file in present))

    def _initrd(self) -> Path:
        root, initrd = self._folder / "root", self._folder / "initrd"
        names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
        archive = [str(root / "bin" / "busybox"), "cpio", "-o", "-H", "newc"]
        packed = subprocess.run(archive, cwd=root, input=names.encode(), check=True, capture_output=True)
        initrd.write_bytes(gzip.compress(packed.stdout, 1))
        return initrd

    def _qemu(self, initrd: Path, printed: Path) -> list[str]:
        share = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
        serial = [part for file in (self._folder / "console", printed) for part in ("-serial", f"file:{file}")]
        return [
            *("setpriv", "--pdeathsig", "KILL"),  # it ends with whoever waits for it
            *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY),
            *("-display", "none", "-nic", "none", "-monitor", "none", "-no-reboot"),
            *("-kernel", str(self._folder / "kernel"), "-initrd", str(initrd), "-append", BOOT),
            *("-fsdev", share, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
            *serial,
        ]


def missing() -> str:
    """Why there can be no machine here; empty when there can."""
    if os.environ.get("MOBIUS_TEST_VM") != "1":
        return "boots a virtual machine, which takes a minute or two: set MOBIUS_TEST_VM=1"
    if absent := [tool for tool in (QEMU, "apt-get", "dpkg", "setpriv") if shutil.which(tool) is None]:
        return f"a virtual machine needs {', '.join(absent)} (Debian: apt-get install qemu-system-x86)"
    return "" if os.geteuid() == 0 else "only root may show a virtual machine all files of this host"


def _kernel_version() -> str:
    """The package of the kernel that is current in Debian's archive."""
    listed = subprocess.run(["apt-cache", "depends", KERNEL], check=True, capture_output=True, text=True)
    return next(line.split()[-1] for line in listed.stdout.splitlines() if "Depends: linux-image-" in line)
