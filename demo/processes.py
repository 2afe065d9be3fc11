"""Every process of the demo: how it is started, found, counted and ended.

All of them carry the work folder in their environment (`DEMO_WORK`), command line or working
directory. That is how the demo finds them in /proc: those it started, and those that trafficmgr
started for it. Nothing is ever signalled by name.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.ledger import now

TREE = Path(__file__).parent.parent
MARK = "DEMO_WORK"
END_GRACE_S = 3.0
LONGEST_COMMAND = 100

_ESTABLISHED = "01"
"""State column of /proc/net/tcp (include/net/tcp_states.h)."""


async def start(
    argv: list[str], *, work: Path, log: str, stdin: int | None = None, stdout: int | None = None
) -> asyncio.subprocess.Process:
    """Start a process of the demo; what it writes to stderr (and stdout) goes to a log file."""
    with (work / log).open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *argv,
            cwd=TREE,
            env=environment(work),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=file if stdout is None else stdout,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends everybody in order
            limit=1 << 20,
        )


def environment(work: Path) -> dict[str, str]:
    """Return the environment that marks a process as the demo's."""
    return {**os.environ, MARK: str(work), "PYTHONUNBUFFERED": "1"}


def registry_command(work: Path, port: int) -> list[str]:
    """Return how to start a registry: Debian's docker-registry if it is installed, else our own."""
    root = work / "registry"
    real = shutil.which("docker-registry")
    if real is None:
        own = str(TREE / "demo" / "registry.py")
        return [sys.executable, own, "--port", str(port), "--root", str(root)]
    config = work / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n",
        "utf-8",
    )
    return [real, "serve", str(config)]


# -- who is there ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """A child of trafficmgr's supervisor, as state_dir/run/children.json has it."""

    role: str
    slot: int | None
    pid: int
    starttime: int


def children(state_dir: Path) -> list[Child]:
    """Return the children that the supervisor recorded; none while the file is away."""
    try:
        entries = json.loads((state_dir / "run" / "children.json").read_bytes())
    except (OSError, ValueError):
        return []
    return [Child(e["role"], e["slot"], e["pid"], e["starttime"]) for e in entries]


def left_of(work: Path) -> dict[int, str]:
    """Return the processes that belong to a work folder (pid -> command line), without our own."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended, or is not ours to look at
                command = (folder / "cmdline").read_bytes()
                if _belongs(folder, command, os.fsencode(work)):
                    found[int(folder.name)] = _brief(command)
    return found


def _brief(command: bytes) -> str:
    """Return a command line for a message: short, and readable whatever is in it."""
    text = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return text if len(text) <= LONGEST_COMMAND else f"{text[:LONGEST_COMMAND]}.."


def _belongs(folder: Path, command: bytes, work: bytes) -> bool:
    if not command:
        return False  # a zombie: it ended and waits for its parent
    environ = (folder / "environ").read_bytes().split(b"\0")
    cwd = os.fsencode((folder / "cwd").readlink())
    return (
        MARK.encode() + b"=" + work in environ
        or work in command
        or cwd == work
        or cwd.startswith(work + b"/")
    )


async def end_all(work: Path, *, grace_s: float = END_GRACE_S) -> None:
    """End what is left of a work folder: SIGTERM, a grace, SIGKILL; by pid, found afresh."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = await wait_until_gone(work, within_s=0.0)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if left:
            await wait_until_gone(work, within_s=grace_s)


async def wait_until_gone(work: Path, *, within_s: float) -> dict[int, str]:
    """Wait until no process of a work folder is left; return who is, after that long."""
    deadline = now() + within_s
    while (left := left_of(work)) and now() < deadline:  # noqa: ASYNC110  /proc tells nobody
        await asyncio.sleep(0.1)
    return left


# -- what they hold -------------------------------------------------------------------------------


def connections_of(pid: int, port: int) -> int:
    """Return how many established TCP connections to a local port a process holds."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    established = _established_on(port)
    return len(inodes & established)


def _established_on(port: int) -> set[str]:
    """Return the inodes of established TCP connections whose local port is this one."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):  # a machine without IPv6
            for line in Path(table).read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes
