"""A handler that tries what a job could do to its supervisor, the key, other jobs and the host.

The names of `ATTEMPTS` are the rows of docs/deploy/security.md.  Nothing here does harm where it succeeds: a signal is
number 0, a limit is set to what it is, what is moved is moved back.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor import Context, handler

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}
PIDFD_GETFD = 438
BEST_EFFORT = 2 << 13
CLONE_NEWUSER = 0x10000000
LONGEST_PIECE = 1 << 24
FLOOD_LINES = 10_000
MOST_FORKS = 200

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Target:
    """Where everything is; `digests` are those of the key and the token, for the job must not hold these itself."""

    supervisor: int
    zygote: int
    sibling: int
    socket: str
    port: int
    state: str
    key_file: str
    token_file: str
    digests: list[str]


@handler("attack")
def attack(target: Target) -> dict[str, str]:
    """Return what came of each attempt: "done", "not found", the name of an error, or a status of the server."""
    return {name: outcome(attempt, target) for name, attempt in ATTEMPTS.items()}


@handler("sibling")
def sibling(context: Context) -> None:
    """Be attacked, for as long as it takes."""
    context.emit("working", {"pid": os.getpid()})
    signal.pause()


@handler("allocate", memory="128MiB")
def allocate() -> None:
    kept = []
    while True:
        kept.append(b"x" * (1 << 24))


def outcome(attempt: Callable[[Target], object], target: Target) -> str:
    try:
        came = attempt(target)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return came if isinstance(came, str) else "done"


def check(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), "")


# Secrets.


def search(pieces: Iterator[bytes], target: Target) -> str:
    for piece in pieces:
        for word in re.findall(rb"mbx_\w+|token_\w+", piece):
            if hashlib.sha256(word).hexdigest() in target.digests:
                return "found"
    return "not found"


def content(path: str | Path) -> Iterator[bytes]:
    yield Path(path).read_bytes()


def descriptors(pid: int) -> Iterator[bytes]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                yield path.read_bytes()


def memory(pid: int) -> Iterator[bytes]:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file, open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            with contextlib.suppress(OSError, OverflowError):  # what is mapped but cannot be read
                yield os.pread(file.fileno(), min(end - start, LONGEST_PIECE), start)


def own_process(_: Target) -> Iterator[bytes]:
    yield from content("/proc/self/environ")
    yield from memory(os.getpid())
    yield from descriptors(os.getpid())


def trace(pid: int) -> None:
    check(libc.ptrace(PTRACE_ATTACH, pid, None, None))
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, None, None)


def system_call(number: int, *arguments: int) -> int:
    """Pass every argument whole: of a plain `int` ctypes passes 32 bits, and leaves what is in the others."""
    return int(libc.syscall(number, *map(ctypes.c_long, arguments)))


def read_by_call(pid: int) -> None:
    buffer = ctypes.create_string_buffer(8)
    piece = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    # An address that only the other process has would be needed next; the kernel asks for the right first.
    result = system_call(
        PROCESS_VM_READV[platform.machine()], pid, ctypes.addressof(piece), 1, ctypes.addressof(piece), 1, 0
    )
    if result == -1 and ctypes.get_errno() != errno.EFAULT:
        check(result)


def take_descriptor(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        taken = system_call(PIDFD_GETFD, pidfd, 1, 0)
        check(taken)
        os.close(taken)
    finally:
        os.close(pidfd)


def journal() -> Iterator[bytes]:
    for base in filter(os.path.isdir, ("/run/log/journal", "/var/log/journal")):
        for folder in Path(base).iterdir():
            for path in folder.iterdir():
                yield from content(path)


# Processes.


def limit(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(0, resource.RLIMIT_CORE))


def priority(pid: int) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))


def io_priority(pid: int) -> None:
    check(system_call(IOPRIO_SET[platform.machine()], 1, pid, BEST_EFFORT | 4))


def schedule(pid: int) -> None:
    os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


def prefer_to_kill(pid: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text("0")


def leave_process(_: Target) -> str:
    """Start a daemon: another session, whose parent has ended, without any descriptor of the job's."""
    program = "import os, time; os.fork() and os._exit(0); os.setsid(); os.close(1); time.sleep(600)"
    command = [sys.executable, "-S", "-c", f"__name__ = 'left-behind'; {program}"]
    # Without the mark of the job; a Python that was copied finds its library by this variable.
    kept = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
    subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=kept)
    return "started"


def fork_bomb(_: Target) -> None:
    """Fork until the kernel refuses; raise what it says."""
    pids = []
    try:
        while len(pids) < MOST_FORKS:
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            pids.append(pid)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# The supervisor's doors and files.

CONNECT = """
import os, socket, sys, time
if sys.argv[2] == "daemon" and (os.fork() or os.setsid() or os.fork()):
    os._exit(0)
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
connected = os.getpid()
if sys.argv[2] == "gone" and os.fork():
    os._exit(0)
while sys.argv[2] == "gone" and os.getppid() == connected:
    time.sleep(0.001)
end.sendall(b"POST /pause HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
print(end.recv(100).split()[1].decode(), flush=True)
"""


def ask(end: socket.socket, method: str, path: str, token: str = "") -> str:
    given = f"Authorization: Bearer {token}\r\n" if token else ""
    end.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{given}\r\n".encode())
    return end.recv(100).split()[1].decode()


def over_socket(target: Target, method: str, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(target.socket)
        return ask(end, method, path)


def over_tcp(target: Target, token: str = "") -> str:
    with socket.create_connection(("localhost", target.port)) as end:
        return ask(end, "POST", "/resume", token)


def by_other(target: Target, kind: str) -> str:
    command = [sys.executable, "-S", "-c", CONNECT, target.socket, kind]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def move_and_back(path: Path) -> None:
    other = path.with_name(f"{path.name}.moved")
    path.rename(other)
    other.rename(path)


def plant_links(target: Target) -> None:
    """Lead root, or the supervisor, from the spool to files of others."""
    spool = Path(target.state, "spool")
    spool.mkdir(exist_ok=True)
    (spool / "planted.outcome").symlink_to("/etc/shadow")
    (spool / "undeliverable").symlink_to("/etc/mobius-supervisor")


def notify(_: Target) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.sendto(b"STATUS=forged\nWATCHDOG=trigger\nSTOPPING=1", "/run/systemd/notify")
    return "sent"


def systemctl(_: Target) -> str:
    command = ["systemctl", "--no-ask-password", "stop", "mobius-supervisor.service"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return "done" if ended.returncode == 0 else "refused"


# The host.


def flood_log(_: Target) -> str:
    for number in range(FLOOD_LINES):
        print("flood", number, "x" * 80)
    return "printed"


def forge_outcome(target: Target) -> None:
    path = Path(target.state, "spool", "forged.outcome")
    path.write_text("forged")
    path.unlink()


def fill_disk(target: Target) -> None:
    path = Path(target.state, "big")
    path.write_bytes(bytes(1 << 20))
    path.unlink()


def set_user_bit(target: Target) -> None:
    path = Path(target.state, "program")
    path.touch()
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def new_namespace() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else ctypes.get_errno())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, "")


def group(target: Target) -> Path:
    """The control group of the supervisor, and of this job."""
    path = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    return Path("/sys/fs/cgroup") / path.lstrip("/")


def packets() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def connect_out(target: Target) -> None:
    socket.create_connection(("localhost", target.port)).close()


def busy(_: Target) -> None:
    give_up_at = time.monotonic() + 0.05
    while time.monotonic() < give_up_at:
        pass


ATTEMPTS: dict[str, Callable[[Target], object]] = {
    "Read the key in the environment of the supervisor": lambda t: search(content(f"/proc/{t.supervisor}/environ"), t),
    "Read the memory of the supervisor in `/proc`": lambda t: search(memory(t.supervisor), t),
    "Read the memory of the supervisor by `process_vm_readv`": lambda t: read_by_call(t.supervisor),
    "Trace the supervisor": lambda t: trace(t.supervisor),
    "Trace the zygote": lambda t: trace(t.zygote),
    "Read the descriptors of the supervisor": lambda t: search(descriptors(t.supervisor), t),
    "Take a descriptor of the supervisor by `pidfd_getfd`": lambda t: take_descriptor(t.supervisor),
    "Read the file of the key": lambda t: search(content(t.key_file), t),
    "Read the file of the key through `/proc/self/root`": lambda t: search(content(f"/proc/self/root{t.key_file}"), t),
    "Read the administrator's copy of the key": lambda _: open("/etc/mobius-supervisor/api-key").close(),
    "Read the file of the token": lambda t: search(content(t.token_file), t),
    "Find a secret in the job's own process": lambda t: search(own_process(t), t),
    "Find a secret in the journal": lambda t: search(journal(), t),
    "Signal the supervisor": lambda t: os.kill(t.supervisor, 0),
    "Signal the zygote": lambda t: os.kill(t.zygote, 0),
    "Signal another job": lambda t: os.kill(t.sibling, 0),
    "Change the limits of the supervisor": lambda t: limit(t.supervisor),
    "Change the limits of another job": lambda t: limit(t.sibling),
    "Change the priority of the supervisor": lambda t: priority(t.supervisor),
    "Change the I/O priority of the supervisor": lambda t: io_priority(t.supervisor),
    "Change the scheduling of the supervisor": lambda t: schedule(t.supervisor),
    "Change the CPU affinity of the supervisor": lambda t: os.sched_setaffinity(t.supervisor, os.sched_getaffinity(0)),
    "Change `oom_score_adj` of the supervisor": lambda t: prefer_to_kill(t.supervisor),
    "Change `oom_score_adj` of another job": lambda t: prefer_to_kill(t.sibling),
    "Read the environment of another job": lambda t: next(content(f"/proc/{t.sibling}/environ")),
    "Trace another job": lambda t: trace(t.sibling),
    "Read and change files of other jobs": lambda t: move_and_back(next(Path(t.state, "instances").iterdir())),
    "Steer over the control socket": lambda t: over_socket(t, "POST", "/pause"),
    "Steer over the control socket from a daemon": lambda t: by_other(t, "daemon"),
    "Steer over the control socket for a process that has ended": lambda t: by_other(t, "gone"),
    "Look at the status over the control socket": lambda t: over_socket(t, "GET", "/status.json"),
    "Steer over TCP without the token": over_tcp,
    "Steer over TCP with the token from its file": lambda t: over_tcp(t, Path(t.token_file).read_text().strip()),
    "Move the control socket away": lambda t: move_and_back(Path(t.socket)),
    "Lead root by links in the spool to other files": plant_links,
    "Forge or delete outcomes in the spool": forge_outcome,
    "Send systemd a status, a stop or a watchdog failure": notify,
    "Stop the unit by `systemctl`": systemctl,
    "Leave the control group": lambda t: (group(t).parent / "cgroup.procs").write_text("0"),
    "Make a control group": lambda t: (group(t) / "own").mkdir(),
    "Change the handlers or the program": lambda _: Path("/opt/mobius-supervisor/new").touch(),
    "Change files in `/etc`": lambda _: Path("/etc/new").touch(),
    "List the homes of users": lambda _: list(Path("/home").iterdir()),
    "Mount a file system": lambda _: check(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "Make a user namespace": lambda _: new_namespace(),
    "Make a setuid program": set_user_bit,
    "Send raw packets": lambda _: packets(),
    "Open network connections": connect_out,
    "Use all CPU time": busy,
    "Fill the disk of the state directory": fill_disk,
    "Start processes without end": fork_bomb,
    "Leave a process behind": leave_process,
    "Flood the log": flood_log,
}
