"""A container's control groups, as its shim and its end need them: enter, kill, count, remove.

They are given as folders, one for each hierarchy (`cgroups.py` makes and removes them); the words
of the files are those of cgroup v1 and v2, whichever is there. A folder that is gone is empty.

Part of the shim: standard library only, and little of that (`shim.py`).
"""

import os
import signal

TYPE_CHECKING = False  # mypy takes it for true; typing's own is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence

OOM_FILES = ("memory.oom_control", "memory.events")
"""Where `oom_kill N` stands: version 1, version 2."""


def enter(cgroups: "Sequence[str]") -> None:
    """Put this process into them, which must have one thread only.

    In version 1 as a thread: that is the one way without a lock for which the kernel waits for
    some 10 ms (cgroup_procs_write_start in its kernel/cgroup/cgroup.c, since Linux 5.5).

    Raises:
        OSError: One of them is gone or closed to us.
    """
    for folder in cgroups:
        if not _wrote(f"{folder}/tasks", b"0"):
            write(f"{folder}/cgroup.procs", b"0")


def kill(cgroups: "Sequence[str]") -> None:
    """SIGKILL everyone in them; they may take a moment to go.

    `cgroup.kill` takes all at once, fork bomb or not (Linux 5.14). Without it nobody may fork any
    more, and whoever is there is killed one by one.
    """
    if any(_wrote(f"{folder}/cgroup.kill", b"1") for folder in cgroups):
        return
    for folder in cgroups:
        _wrote(f"{folder}/pids.max", b"0")
    for pid in pids(cgroups):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def pids(cgroups: "Sequence[str]") -> set[int]:
    """Return who is in them, zombies included. 0 is someone whom our pid namespace can't name."""
    found: set[int] = set()
    for folder in cgroups:
        found.update(int(line) for line in read(f"{folder}/cgroup.procs").split())
    return found - {0}


def oom_kills(cgroups: "Sequence[str]") -> int:
    """Return how many of their processes the kernel has killed for want of memory."""
    return max(
        (_counted(f"{folder}/{name}") for folder in cgroups for name in OOM_FILES), default=0
    )


def remove(cgroups: "Sequence[str]") -> None:
    """Remove the container's folders, and its group's and its installation's if they are empty.

    So nothing is left even if no controller comes again. Who is not quite gone yet keeps them;
    then they are the controller's to remove.
    """
    for folder in cgroups:
        place = folder
        for _ in ("container", "group", "installation"):
            try:
                os.rmdir(place)  # noqa: PTH106  pathlib is slow to import
            except OSError:
                break
            place = place.rpartition("/")[0]


def _counted(file: str) -> int:
    lines = (line.split() for line in read(file).splitlines())
    return sum(int(words[1]) for words in lines if words[:1] == [b"oom_kill"])


def _wrote(file: str, text: bytes) -> bool:
    """Write to the file if it is there; whether that worked."""
    try:
        write(file, text)
    except OSError:
        return False
    return True


def write(file: str, text: bytes) -> None:
    """Write to a control file, which is never created.

    Raises:
        OSError: There is none, or it does not take the text.
    """
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def read(file: str) -> bytes:
    """Return what a control file says; nothing if there is none."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123  pathlib is slow to import
            return opened.read()
    except OSError:
        return b""
