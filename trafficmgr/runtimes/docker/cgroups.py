"""Limits of a whole group: a cgroup of ours, which the engine makes its containers' parent.

The engine limits containers only. But it puts them below any cgroup that we name, and the kernel
holds the sum to the parent's limits. That works where we and the engine share one cgroup tree that
we may write to, and the engine does not leave it to systemd; elsewhere it is a gap.

Both layouts are known: one tree (v2), and a tree for each controller (v1, also hybrid).
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trafficmgr.core.template import Resources
from trafficmgr.runtimes.docker.engine import EngineFacts
from trafficmgr.runtimes.docker.names import stem

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
"""The kernel's own default, over which cpu time is counted out."""
_SWAP = "memory.swap.max"
"""Is there only where the kernel counts swap at all."""
_CPU_TREES = ("cpu", "cpu,cpuacct")
_REMOVALS = 20
_REMOVAL_PAUSE_S = 0.02


class GroupLimits:
    """The cgroups of one instance's groups."""

    def __init__(self, instance: str, *, root: Path = _ROOT) -> None:
        """Make them below a root."""
        self._instance = instance
        self._root = root
        self._is_elsewhere = False

    def gap(self, facts: EngineFacts) -> str:
        """Return why groups can't be limited here; "" is that they can."""
        if facts.is_podman:
            return "Podman keeps the cgroups of its containers to itself"
        if facts.cgroup_driver != "cgroupfs":
            return f"the engine leaves cgroups to {facts.cgroup_driver or 'nobody'}"
        if facts.is_rootless:
            return "the engine runs without root"
        if self._is_elsewhere:
            return "the engine's containers are in other cgroups than ours"
        if not all(os.access(tree, os.W_OK) for tree in self._trees()):
            return f"{self._root} can't be written to"
        return ""

    def parent(self, group: str) -> str:
        """Return what the engine is told."""
        return f"/{stem(self._instance, group)}"

    def make(self, group: str, resources: Resources) -> None:
        """Make a group's cgroup with its limits.

        Raises:
            OSError: It can't be made.
        """
        for tree in self._trees():
            folder = tree / self.parent(group)[1:]
            folder.mkdir(exist_ok=True)
            for name, value in self._limits(tree, resources):
                if (folder / name).exists() or name != _SWAP:
                    (folder / name).write_text(value)

    def holds(self, group: str, pid: int) -> bool:
        """Whether a process of the group is in its cgroup; if not, the engine's are elsewhere."""
        try:
            found = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            found = ""
        self._is_elsewhere = self._is_elsewhere or f"{self.parent(group)}/" not in found
        return not self._is_elsewhere

    def remove(self, group: str) -> None:
        """Remove a group's cgroup in all trees; the engine leaves the parents behind.

        An engine that crashes also leaves what was below them, and may forget a process that it
        has just started. The group's containers are gone, so what still runs here is such a one.
        The kernel takes a moment to see that the last process has gone.
        """
        name = self.parent(group)[1:]
        for _ in range(_REMOVALS):
            left = [
                one for one in (self._root / name, *self._root.glob(f"*/{name}")) if one.is_dir()
            ]
            if not left:
                return
            for top in left:
                for folder, _, _ in os.walk(top, topdown=False):
                    with suppress(OSError):
                        _kill(Path(folder))
                        Path(folder).rmdir()
            time.sleep(_REMOVAL_PAUSE_S)

    # -- the two layouts --------------------------------------------------------------------------

    @property
    def _is_unified(self) -> bool:
        return (self._root / "cgroup.controllers").exists()

    def _trees(self) -> tuple[Path, ...]:
        if self._is_unified:
            return (self._root,)
        cpu = next((name for name in _CPU_TREES if (self._root / name).is_dir()), _CPU_TREES[0])
        return (self._root / "memory", self._root / cpu)

    def _limits(self, tree: Path, resources: Resources) -> Iterator[tuple[str, str]]:
        """Yield (file, content) of the limits that a tree can give."""
        memory, cpu = resources.memory_bytes, resources.cpu
        quota = None if cpu is None else str(math.ceil(cpu * _PERIOD_US))
        if self._is_unified:
            if memory is not None:
                yield "memory.max", str(memory)
                yield _SWAP, "0"
            if quota is not None:
                yield "cpu.max", f"{quota} {_PERIOD_US}"
        elif tree.name == "memory":
            if memory is not None:
                yield "memory.limit_in_bytes", str(memory)
        elif quota is not None:
            yield "cpu.cfs_period_us", str(_PERIOD_US)
            yield "cpu.cfs_quota_us", quota


def _kill(folder: Path) -> None:
    """End whatever is in a cgroup, where the kernel can (5.14, in the v2 tree)."""
    switch = folder / "cgroup.kill"
    if switch.exists():
        switch.write_text("1")
