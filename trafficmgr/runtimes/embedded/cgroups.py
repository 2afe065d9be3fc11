"""Control groups: limits of cpu, memory and processes, and an end that nobody escapes.

```
HIERARCHY/NAME/GROUP/CONTAINER      for each hierarchy that we may write to
```

See docs/decisions/0013.

NAME tells installations from each other. Each container has its folder from before its start until
its end; its shim puts the application there (`shimgroup.py`) and is in none itself. Limits of the
whole group are its folder's. They are at the root of each hierarchy, as Docker's `cgroupfs` driver
has them: groups outlive whatever unit or session started us.

Version 1, version 2 and the mixed layout are told apart by what is mounted. What can be used is
found out by trying, once; what can't is in `gaps`, with the reason. Limits that were asked for and
can't be had are left out. A hierarchy without controllers (of the mixed layout) is only used for
its `cgroup.kill`, if there is no `pids` elsewhere: to enter it would cost 10 ms a start.

Source: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import Resources
from trafficmgr.runtimes.embedded import shimgroup
from trafficmgr.runtimes.embedded.mounts import Mounted, mounts

PIDS_MAX = 1024
"""Processes and threads of a container: Docker has no default, Podman 2048, we are the smaller."""
PERIOD_US = 100_000
"""Over which a cpu limit is held: the kernel's and Docker's default."""
PATIENCE_S = 2.0
"""How long to wait for a folder whose processes were killed."""
_POLL_S = 0.01
_USED = ("cpu", "cpuacct", "memory", "pids")
_LIMIT_FILES = {
    (1, "cpu"): ("cpu.cfs_quota_us", "-1"),
    (1, "memory"): ("memory.limit_in_bytes", "-1"),
    (1, "pids"): ("pids.max", "max"),
    (2, "cpu"): ("cpu.max", "max"),
    (2, "memory"): ("memory.max", "max"),
    (2, "pids"): ("pids.max", "max"),
}
"""(version, controller) -> the file of its limit, and what means none."""
_BEHAVIOURS = {
    "cpu_limit": ("cpu",),
    "memory_limit": ("memory",),
    "group_limits": ("cpu", "memory"),
    "process_limit": ("pids",),
}


class Hierarchy(Noun):
    """A mounted hierarchy: its version, and which controllers of interest it has."""

    root: str
    version: int
    controllers: tuple[str, ...]


class Usage(Noun):
    """What a container has used."""

    cpu_s: float
    memory_bytes: int


def hierarchies(mounted: Sequence[Mounted]) -> tuple[Hierarchy, ...]:
    """Return the hierarchies among what is mounted."""
    return tuple(_hierarchies(mounted))


def _hierarchies(mounted: Sequence[Mounted]) -> Iterator[Hierarchy]:
    for one in mounted:
        if one.kind == "cgroup":
            controllers = tuple(name for name in _USED if name in one.options)
            if controllers:
                yield Hierarchy(root=one.point, version=1, controllers=controllers)
        elif one.kind == "cgroup2":
            there = shimgroup.read(f"{one.point}/cgroup.controllers").decode().split()
            controllers = tuple(name for name in _USED if name in there)
            yield Hierarchy(root=one.point, version=2, controllers=controllers)


class Cgroups:
    """The control groups of one installation."""

    def __init__(self, name: str, found: Sequence[Hierarchy] | None = None) -> None:
        """Try what is there.

        Args:
            name: The folder of this installation in each hierarchy.
            found: The hierarchies; None looks for them.
        """
        self._name = name
        self._reasons: dict[str, str] = {}
        found = hierarchies(mounts()) if found is None else found
        tried = [self._tried(hierarchy) for hierarchy in found]
        usable = tuple(one for one in tried if one is not None)
        can_kill = any("pids" in one.controllers for one in usable)
        self._usable = tuple(one for one in usable if one.controllers or not can_kill)

    @property
    def gaps(self) -> Mapping[str, str]:
        """Return behaviour -> why not here."""
        usable = {name for one in self._usable for name in one.controllers}
        return {
            behaviour: self._why_not(next(name for name in needed if name not in usable))
            for behaviour, needed in _BEHAVIOURS.items()
            if not usable.issuperset(needed)
        }

    def folders(self, group: str, container: str) -> tuple[str, ...]:
        """Return where the container is, or will be."""
        return tuple(f"{one.root}/{self._name}/{group}/{container}" for one in self._usable)

    def create(self, group: str, container: str, whole: Resources, own: Resources) -> None:
        """Make the container's folders with its limits, and its group's.

        Args:
            group: The group.
            container: One of its containers.
            whole: The limits of the group.
            own: The limits of the container.

        Raises:
            OSError: The kernel did not let us, though it did when we tried.
        """
        for one in self._usable:
            above = f"{one.root}/{self._name}/{group}"
            _make(one, above)
            _limit(one, above, whole, pids_max=None)
            _delegate(one, above)
            _make(one, f"{above}/{container}")
            _limit(one, f"{above}/{container}", _within(own, whole), pids_max=PIDS_MAX)

    def sweep(self, is_there: Callable[[str], bool]) -> None:
        """Remove the empty folders of groups that are gone."""
        for one in self._usable:
            for group in _below(f"{one.root}/{self._name}"):
                if not is_there(Path(group).name):
                    remove(_below(group), patience_s=0.0)
                    _removed(group)
            _removed(f"{one.root}/{self._name}")

    # -- trying -----------------------------------------------------------------------------------

    def _tried(self, hierarchy: Hierarchy) -> Hierarchy | None:
        """Return the hierarchy with what can be used of it; None if it can't be written to."""
        probe = f"{hierarchy.root}/{self._name}/.try-{secrets.token_hex(4)}"
        try:
            _make(hierarchy, probe)
        except OSError as error:
            self._reasons.update(dict.fromkeys(hierarchy.controllers, _because(hierarchy, error)))
            return None
        try:
            works = tuple(c for c in hierarchy.controllers if self._works(hierarchy, c, probe))
        finally:
            _removed(probe)
            _removed(f"{hierarchy.root}/{self._name}")
        return hierarchy.but(controllers=works)

    def _works(self, hierarchy: Hierarchy, controller: str, probe: str) -> bool:
        if controller == "cpuacct":
            return True
        file, unlimited = _LIMIT_FILES[hierarchy.version, controller]
        try:
            shimgroup.write(f"{probe}/{file}", unlimited.encode())
        except OSError as error:
            self._reasons[controller] = _because(hierarchy, error)
            return False
        return True

    def _why_not(self, controller: str) -> str:
        reason = self._reasons.get(controller, "it is mounted nowhere here")
        return f"control group {controller}: {reason}"


def _because(hierarchy: Hierarchy, error: OSError) -> str:
    return (
        f"{hierarchy.root} can't be written to ({error.strerror}); it takes root, or a delegation"
    )


# -- making ---------------------------------------------------------------------------------------


def _make(one: Hierarchy, folder: str) -> None:
    """Make the folder and those above it, whose controllers are handed down (version 2)."""
    above = Path(folder).parent
    if above != Path(one.root):
        _make(one, str(above))
    _delegate(one, str(above))
    for _ in range(3):  # who removes the last group may remove the folder above between the two
        try:
            Path(folder).mkdir(exist_ok=True)
        except FileNotFoundError:
            above.mkdir(exist_ok=True)
            _delegate(one, str(above))
        else:
            return


def _delegate(one: Hierarchy, folder: str) -> None:
    """Let the folders below have the controllers, as far as the kernel lets us (version 2)."""
    if one.version == 1:
        return
    file = f"{folder}/cgroup.subtree_control"
    there = shimgroup.read(file).decode().split()
    for controller in one.controllers:
        if controller not in there:
            try:
                shimgroup.write(file, f"+{controller}".encode())
            except OSError:
                continue  # its files are missing below, which is noticed there


def _within(own: Resources, whole: Resources) -> Resources:
    """Return the container's limits, no larger than its group's: version 1 refuses such."""
    limits = [limit for limit in (own.cpu, whole.cpu) if limit is not None]
    return own.but(cpu=min(limits) if own.cpu is not None else None)


def _limit(one: Hierarchy, folder: str, limits: Resources, *, pids_max: int | None) -> None:
    """Write what is limited, as far as the hierarchy can."""
    if "cpu" in one.controllers and limits.cpu is not None:
        quota = max(1000, round(limits.cpu * PERIOD_US))
        if one.version == 1:
            shimgroup.write(f"{folder}/cpu.cfs_period_us", str(PERIOD_US).encode())
            shimgroup.write(f"{folder}/cpu.cfs_quota_us", str(quota).encode())
        else:
            shimgroup.write(f"{folder}/cpu.max", f"{quota} {PERIOD_US}".encode())
    if "memory" in one.controllers and limits.memory_bytes is not None:
        _limit_memory(one, folder, str(limits.memory_bytes).encode())
    if "pids" in one.controllers and pids_max is not None:
        shimgroup.write(f"{folder}/pids.max", str(pids_max).encode())


def _limit_memory(one: Hierarchy, folder: str, size: bytes) -> None:
    """Limit memory, and let nothing of it move to swap instead, where that can be said."""
    if one.version == 1:
        shimgroup.write(f"{folder}/memory.limit_in_bytes", size)
        swap, value = f"{folder}/memory.memsw.limit_in_bytes", size
    else:
        shimgroup.write(f"{folder}/memory.max", size)
        swap, value = f"{folder}/memory.swap.max", b"0"
    if Path(swap).exists():
        shimgroup.write(swap, value)


# -- using and removing ---------------------------------------------------------------------------


def usage(cgroups: Sequence[str]) -> Usage | None:
    """Return what a container has used, if its folders say so; memory is without idle cache."""
    cpu_s = memory_bytes = None
    for folder in cgroups:
        if spent := shimgroup.read(f"{folder}/cpuacct.usage"):
            cpu_s = int(spent) / 1e9
        elif (spent_us := _value(f"{folder}/cpu.stat", "usage_usec")) is not None:
            cpu_s = cpu_s if cpu_s is not None else spent_us / 1e6
        for held_in, idle in (
            ("memory.usage_in_bytes", "total_inactive_file"),
            ("memory.current", "inactive_file"),
        ):
            if held := shimgroup.read(f"{folder}/{held_in}"):
                memory_bytes = max(0, int(held) - (_value(f"{folder}/memory.stat", idle) or 0))
    if cpu_s is None or memory_bytes is None:
        return None
    return Usage(cpu_s=cpu_s, memory_bytes=memory_bytes)


def _value(file: str, name: str) -> int | None:
    for line in shimgroup.read(file).decode().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def remove(folders: Sequence[str], *, patience_s: float = PATIENCE_S) -> None:
    """Remove containers' folders, then those of their groups and installations if empty.

    What does not empty in time stays; `sweep` takes it later.
    """
    give_up_at = time.monotonic() + patience_s
    for folder in folders:
        while not _removed(folder) and time.monotonic() < give_up_at:
            time.sleep(_POLL_S)
    for group in dict.fromkeys(Path(folder).parent for folder in folders):
        if _removed(str(group)):
            _removed(str(group.parent))


def _removed(folder: str) -> bool:
    """Remove the folder if it is empty; whether it is gone."""
    try:
        Path(folder).rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        return error.errno not in {errno.EBUSY, errno.ENOTEMPTY}
    return True


def _below(folder: str) -> tuple[str, ...]:
    try:
        return tuple(entry.path for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return ()
