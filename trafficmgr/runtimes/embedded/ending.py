"""Ending a container: in order through its shim, by force if that fails.

1. SIGTERM to the shim, which gives the process group its signal and its grace, kills what is left
   and leaves with exit.json.
2. A shim that is stuck past the grace is killed, with the application's process group.
3. A shim that was killed by others left the application behind: the same signal, grace and
   SIGKILL from here. What left the process group is found by its control group, or where there is
   none by its mark (`identity.marked`).
4. What else runs in the container is killed: commands of `exec` are no descendants of the shim.

All of it is by verified identity; processes of another boot are not even looked for.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.embedded import identity, shimgroup
from trafficmgr.runtimes.embedded.files import write_file
from trafficmgr.runtimes.embedded.folders import ContainerFolder
from trafficmgr.runtimes.embedded.identity import Identity, ProcessId
from trafficmgr.runtimes.embedded.launch import START_DEADLINE_S
from trafficmgr.runtimes.embedded.process import ProcessSpec

MARGIN_S = 7.0
"""How much longer than its grace a shim may take: 5 s for those it killed, 2 s for the disk."""
KILL_PATIENCE_S = 5.0
_POLL_S = 0.02


async def end(container: ContainerFolder) -> None:
    """Return when nothing of the container runs, and nothing of it can start any more.

    Raises:
        RuntimeFailure: Processes were killed and are still there (uninterruptible sleep).
    """
    if not await asyncio.to_thread(_fence, container):
        await _decided(container)
    found, process = container.identity(), container.process()
    if found is None or not found.is_of_this_boot:
        return
    grace_s = process.grace_s if process is not None else 0.0
    if identity.send(found.shim, signal.SIGTERM):
        await _end_shim(found, grace_s)
    if container.exit() is None and process is not None:
        await _end_orphans(found, process, grace_s)
    if process is not None:
        await _kill_rest(found, process)
    left = [one.pid for one in (found.shim, found.app) if identity.is_alive(one)]
    if left:
        raise RuntimeFailure(
            f"embedded: cannot end container {container.path}: pids {left} outlived SIGKILL, which "
            "is a disk or driver that does not answer. No traffic goes there. It is tried again."
        )


def _fence(container: ContainerFolder) -> bool:
    """Let no shim start here any more; False if one holds the lock and has not decided yet."""
    if container.has_started() or not container.path.is_dir():
        return True
    with (container.path / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not container.has_started():
            write_file(container.path / "exit.json", b'{"error": "stopped before it started"}')
    return True


async def _decided(container: ContainerFolder) -> None:
    """Wait for the shim that is just starting, which nobody else waits for."""
    async with asyncio.timeout(START_DEADLINE_S):
        while not container.has_started():  # noqa: ASYNC110  another process decides
            await asyncio.sleep(_POLL_S)


async def _end_shim(found: Identity, grace_s: float) -> None:
    if await gone(found.shim, grace_s + MARGIN_S):
        return
    identity.send_group(found.app, signal.SIGKILL)
    identity.send(found.app, signal.SIGKILL)
    identity.send(found.shim, signal.SIGKILL)
    await gone(found.shim, KILL_PATIENCE_S)


async def _end_orphans(found: Identity, process: ProcessSpec, grace_s: float) -> None:
    """End what a killed shim left behind."""
    if identity.send_group(found.app, process.stop_signal):
        await gone(found.app, grace_s)
    identity.send_group(found.app, signal.SIGKILL)


async def _kill_rest(found: Identity, process: ProcessSpec) -> None:
    """Kill until nobody is left, as far as that can be done at all."""
    for _ in range(int(KILL_PATIENCE_S / _POLL_S)):
        left = await asyncio.to_thread(_left, process)
        if not left and not identity.is_alive(found.app):
            return
        shimgroup.kill(process.cgroups)
        for one in (*left, found.app):
            identity.send(one, signal.SIGKILL)
        await asyncio.sleep(_POLL_S)


def _left(process: ProcessSpec) -> tuple[ProcessId, ...]:
    """Return who runs in the container; without a control group that takes a look at everyone."""
    if process.cgroups:
        return tuple(filter(None, map(identity.of, shimgroup.pids(process.cgroups))))
    return identity.marked(process.mark)


async def gone(process: ProcessId, patience_s: float | None) -> bool:
    """Wait until the process is gone; False if it was still there after so many seconds."""
    pidfd = identity.open_pidfd(process)
    if pidfd is None:
        return True
    with _readable(pidfd) as ended:
        try:
            async with asyncio.timeout(patience_s):
                await ended.wait()
        except TimeoutError:
            return False
    return True


@contextmanager
def _readable(pidfd: int) -> Iterator[asyncio.Event]:
    """Own the descriptor, and set the event once it can be read: its process is gone."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, event.set)
    try:
        yield event
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
