"""What containers have used: from their control groups, or added up over their processes.

Added up, time is that of the processes there are and of those that the shim or a parent has waited
for; memory is resident memory, in which what processes share counts for each of them.
"""

import os
from pathlib import Path

from trafficmgr.runtimes.contract import ContainerStats
from trafficmgr.runtimes.embedded import cgroups, identity
from trafficmgr.runtimes.embedded.folders import ContainerFolder, GroupFolder
from trafficmgr.runtimes.embedded.identity import Identity

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def group_stats(folder: GroupFolder) -> tuple[ContainerStats, ...]:
    """Return what each container of the group has used; blocks for some ms."""
    return tuple(_stats(container) for container in folder.containers())


def _stats(container: ContainerFolder) -> ContainerStats:
    name, process, found = container.path.name, container.process(), container.identity()
    if process is None or found is None or not found.is_of_this_boot:
        return ContainerStats(name=name)
    used = cgroups.usage(process.cgroups)
    if used is None and identity.is_alive(found.shim):
        used = _added_up(found, process.mark)
    if used is None:
        return ContainerStats(name=name)
    return ContainerStats(name=name, cpu_s=used.cpu_s, memory_bytes=used.memory_bytes)


def _added_up(found: Identity, mark: str) -> cgroups.Usage:
    ticks = pages = 0
    for process in identity.marked(mark):
        times = _times(process.pid)
        ticks += sum(times)
        pages += _resident_pages(process.pid)
    ticks += sum(_times(found.shim.pid)[2:])
    return cgroups.Usage(cpu_s=ticks / _TICKS, memory_bytes=pages * _PAGE_BYTES)


def _times(pid: int) -> tuple[int, ...]:
    """Return a process's ticks in user and system mode, then those of children it waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return (0, 0, 0, 0)
    return tuple(int(field) for field in fields[11:15])


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except OSError:
        return 0
