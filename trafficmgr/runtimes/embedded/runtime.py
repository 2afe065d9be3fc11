"""The embedded runtime, process mode: groups without Docker and without root (DESIGN 8).

`start` pulls and unpacks what is missing (`trees.py`), finds the commands (`process.py`), writes
the group's folder (`folders.py`), makes its volumes and control groups (`volumes.py`, `cgroups.py`)
and starts a shim per container (`starting.py`, `launch.py`, `shim.py`). From then on the group
needs no controller. `stop` ends it (`hooks.py`, `ending.py`) and keeps its logs.

What process mode does not isolate is said in `process.py`, and what it can't give in `gaps.py`.

Starts and stops of the same group take turns; a stop does not wait for a start that is under way,
it ends it.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import (
    EVERYTHING,
    NO_SECRETS,
    ContainerStats,
    GroupSpec,
    GroupState,
    GroupStatus,
    ImagesRemoved,
    LogQuery,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
    Secrets,
)
from trafficmgr.runtimes.embedded import cgroups, folders, gaps
from trafficmgr.runtimes.embedded.cgroups import Cgroups
from trafficmgr.runtimes.embedded.commands import run_inside
from trafficmgr.runtimes.embedded.ending import end
from trafficmgr.runtimes.embedded.folders import GroupFolder, forget_old_logs
from trafficmgr.runtimes.embedded.hooks import before_stop
from trafficmgr.runtimes.embedded.logs import open_logs, read
from trafficmgr.runtimes.embedded.session import Session
from trafficmgr.runtimes.embedded.starting import Start
from trafficmgr.runtimes.embedded.states import group_status, runs
from trafficmgr.runtimes.embedded.stats import group_stats
from trafficmgr.runtimes.embedded.trees import Trees
from trafficmgr.runtimes.embedded.vault import MEMORY, Vault
from trafficmgr.runtimes.embedded.watching import Watch
from trafficmgr.runtimes.turns import Turns
from trafficmgr.wire.images import LocalImage

KEEP_LOGS_S = 86400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What may become the name of a folder."""


class EmbeddedRuntime(Runtime):
    """Groups as supervised plain processes below `state_dir`."""

    def __init__(
        self,
        *,
        state_dir: Path,
        instance: str,
        pull: Callable[[ImageDigest], Awaitable[LocalImage]],
        keep_logs_s: float = KEEP_LOGS_S,
        memory: Path = MEMORY,
    ) -> None:
        """Know the groups below a folder.

        Args:
            state_dir: Where `groups/`, `logs/` and `store/trees/` are, or will be.
            instance: Only groups of this instance are seen or touched.
            pull: Brings an image to this machine. Its errors leave `start` as they are, so it
                raises RuntimeFailure, or RuntimeUnknownError while the registry is away.
            keep_logs_s: How long logs of groups that are gone are kept.
            memory: Where secrets are kept: a folder of a memory-backed file system.
        """
        self._instance = instance
        self._turns = Turns("embedded")
        self._keep_logs_s = keep_logs_s
        name = _name_here(instance, state_dir)
        self._cgroups = Cgroups(name)
        self._vault = Vault(memory, name)
        self._gaps = gaps.gaps(self._cgroups, self._vault)
        self._is_swept = False
        self._sessions: dict[str, set[Session]] = {}
        self._groups = state_dir.absolute() / "groups"
        self._logs = state_dir.absolute() / "logs"
        self._trees = Trees(state_dir.absolute() / "store" / "trees", pull)
        self._watch = Watch()

    @property
    def gaps(self) -> Mapping[str, str]:
        """Return behaviour -> why not here."""
        return self._gaps

    async def start(self, spec: GroupSpec, secrets: Secrets = NO_SECRETS) -> str:
        """Start the group; see the contract. A start that was interrupted is completed."""
        _check_names(spec)
        async with self._turns.start(spec.group):
            return await self._start(spec, secrets)

    async def stop(self, group: str) -> None:
        """End the group and forget it, except for its logs."""
        async with self._turns.stop(group):
            await self._remove(GroupFolder(self._groups / group), is_orderly=True)

    async def list(self) -> tuple[GroupStatus, ...]:
        """Return the groups of this instance. Those that run are watched from now on."""
        found = await asyncio.to_thread(self._scan)
        for folder, status in found:
            if status.state is GroupState.running and self._turns.is_settled(status.group):
                self._watch.add(folder)
        return tuple(status for _, status in found)

    async def watch(self) -> AsyncIterator[GroupStatus]:
        """Yield each group that ended by itself, once. Meant for one listener."""
        while True:
            yield await self._watch.ended.get()

    async def logs(self, group: str, query: LogQuery = EVERYTHING) -> AsyncIterator[bytes]:
        """Yield what the group wrote; a group that is gone is remembered for a while."""
        folder = GroupFolder(self._groups / group)
        names = tuple(container.path.name for container in folder.every_container())
        place = folder.path
        if not names:
            place = self._logs / group
            await asyncio.to_thread(forget_old_logs, self._logs, self._keep_logs_s)
            names = _sub_folders(place) if _NAME.fullmatch(group) else ()
        if not names:
            raise RuntimeFailure(
                f'embedded: there is no group "{group}", and no logs of it are kept. '
                "`trafficmgr status` lists those that run."
            )
        wanted = tuple(name for name in names if query.container in {"", name})
        if not wanted:
            raise RuntimeFailure(
                f'embedded: group {group} has no container "{query.container}", or nothing of it '
                f"is kept. There are: {', '.join(names)}."
            )
        logs = open_logs(place, wanted, is_alone=len(names) == 1 or bool(query.container))
        async for chunk in read(
            logs, query, is_followed=lambda: query.is_followed and runs(folder)
        ):
            yield chunk

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> Session:
        """Run a command inside a container ("" is the first), with its environment."""
        folder = self._known(group)
        session = await run_inside(folder, container, command, has_tty=has_tty)
        others = {one for one in self._sessions.get(group, ()) if not one.has_ended}
        self._sessions[group] = others | {session}
        return session

    async def stats(self, group: str) -> tuple[ContainerStats, ...]:
        """Return what the group's containers have used since they started."""
        return await asyncio.to_thread(group_stats, self._known(group))

    def keep_logs(self, seconds: float) -> None:
        """Keep the logs of groups that are gone for so long from now on."""
        self._keep_logs_s = seconds

    async def keep_images(self, digests: frozenset[str]) -> ImagesRemoved:
        """Remove all trees but these, and those that groups run in."""
        try:
            return await self._trees.keep(digests, lambda: folders.images_in_use(self._groups))
        except OSError as error:
            raise RuntimeUnknownError(
                f"embedded: images that nobody needs can't be removed: {error}. Some may be gone; "
                "no group is touched. Look at that file or folder; it is tried again."
            ) from error

    async def close(self) -> None:
        """Let go of the groups; they run on."""
        self._watch.close()
        for group in tuple(self._sessions):
            await self._end_sessions(group)

    def _known(self, group: str) -> GroupFolder:
        folder = GroupFolder(self._groups / group)
        record = folder.record() if _NAME.fullmatch(group) else None
        if record is None or record.spec.instance != self._instance:
            raise RuntimeFailure(
                f'embedded: there is no group "{group}". `trafficmgr status` lists those that run.'
            )
        return folder

    # -- starting ---------------------------------------------------------------------------------

    async def _start(self, spec: GroupSpec, secrets: Secrets) -> str:
        folder = GroupFolder(self._groups / spec.group)
        status = await asyncio.to_thread(group_status, folder)
        if status is None:
            if folder.is_of_another_boot():
                await self._remove(folder, is_orderly=False)
            with self._trees.in_use(spec.images):
                await self._bring_up(spec, folder, secrets)
        elif status.state is GroupState.exited:
            raise RuntimeFailure(
                f"embedded: group {spec.group} has ended ({status.reason}) and is never started "
                "again. No traffic goes there. Stop it, and start another one."
            )
        if status is None or status.state is GroupState.running:
            self._watch.add(folder)
        record = folder.record()
        return record.spec.address if record is not None else spec.address

    async def _bring_up(self, spec: GroupSpec, folder: GroupFolder, secrets: Secrets) -> None:
        try:
            start = Start(spec, folder, secrets, cgroups=self._cgroups, vault=self._vault)
            processes = await start.processes(self._trees)
        except RuntimeUnknownError:
            raise  # what an interrupted start has left may be completed later
        except RuntimeFailure:
            await self._remove(folder, is_orderly=False)
            raise
        try:
            await start.run(processes)
        except RuntimeFailure:
            await self._remove(folder, is_orderly=False)
            raise
        except OSError as error:
            await self._remove(folder, is_orderly=False)
            raise RuntimeUnknownError(
                f"embedded: cannot start group {spec.group} in {folder.path}: {error}. Nothing of "
                "it runs, and traffic stays where it is. Make room or access there; it is tried "
                "again."
            ) from error

    # -- ending -----------------------------------------------------------------------------------

    async def _remove(self, folder: GroupFolder, *, is_orderly: bool) -> None:
        """End the group, asking its containers first if that is orderly, and forget it."""
        if not _NAME.fullmatch(folder.group):
            return
        if not await asyncio.to_thread(folder.may_be_removed_by, self._instance):
            return
        self._watch.forget(folder.group)
        for container in reversed(folder.every_container()):
            if is_orderly:
                await before_stop(folder, container)
            await end(container)
        await self._end_sessions(folder.group)
        await asyncio.to_thread(self._forget, folder)

    def _forget(self, folder: GroupFolder) -> None:
        """Remove all that the group had, its own folder last: it says what else there is."""
        processes = (container.process() for container in folder.every_container())
        cgroups.remove([one for process in processes if process for one in process.cgroups])
        self._vault.remove(folder.group)
        folder.remove(self._logs)
        forget_old_logs(self._logs, self._keep_logs_s)

    async def _end_sessions(self, group: str) -> None:
        for session in self._sessions.pop(group, ()):
            await session.close()

    def _scan(self) -> tuple[tuple[GroupFolder, GroupStatus], ...]:
        if not self._is_swept:
            self._cgroups.sweep(self._is_there)
            self._vault.sweep(self._is_there)
            self._is_swept = True
        forget_old_logs(self._logs, self._keep_logs_s)
        found = (
            (folder, group_status(folder))
            for folder in folders.groups(self._groups, self._instance)
        )
        return tuple((folder, status) for folder, status in found if status is not None)

    def _is_there(self, group: str) -> bool:
        return (self._groups / group).exists()


def _check_names(spec: GroupSpec) -> None:
    for name in (spec.group, *(one.name for one in spec.template.every_container())):
        if not _NAME.fullmatch(name):
            raise RuntimeFailure(
                f'embedded: cannot start group "{spec.group}": the name "{name}" may only have '
                "letters, digits, dots, dashes and underscores. Nothing was started."
            )


def _sub_folders(place: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in place.iterdir())) if place.is_dir() else ()


def _name_here(instance: str, state_dir: Path) -> str:
    """Return a name for what this installation has outside of its state_dir."""
    place = hashlib.sha256(bytes(state_dir.absolute())).hexdigest()[:8]
    return f"trafficmgr-{instance}-{place}"
