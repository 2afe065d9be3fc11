"""The embedded runtime, process mode: groups without Docker and without root (DESIGN 8).

`start` pulls and unpacks what is missing (`trees.py`), finds the command (`process.py`), writes
the group's folder (`folders.py`) and starts a shim per container (`launch.py`, `shim.py`). From
then on the group needs no controller. `stop` ends it (`ending.py`) and keeps its logs.

What process mode does not isolate is said in `process.py`.

Starts and stops of the same group take turns; a stop does not wait for a start that is under way,
it ends it.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import (
    GroupSpec,
    GroupState,
    GroupStatus,
    Runtime,
    RuntimeFailure,
    RuntimeUnknownError,
)
from trafficmgr.runtimes.embedded.ending import end
from trafficmgr.runtimes.embedded.folders import GroupFolder, groups
from trafficmgr.runtimes.embedded.launch import launch
from trafficmgr.runtimes.embedded.logs import open_logs, read
from trafficmgr.runtimes.embedded.process import ProcessSpec, process_spec
from trafficmgr.runtimes.embedded.trees import Trees
from trafficmgr.runtimes.embedded.watching import Watch
from trafficmgr.wire.images import LocalImage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What may become the name of a folder."""

_Result = TypeVar("_Result")


class EmbeddedRuntime(Runtime):
    """Groups as supervised plain processes below `state_dir`."""

    def __init__(
        self,
        *,
        state_dir: Path,
        instance: str,
        pull: Callable[[ImageDigest], Awaitable[LocalImage]],
    ) -> None:
        """Know the groups below a folder.

        Args:
            state_dir: Where `groups/`, `logs/` and `store/trees/` are, or will be.
            instance: Only groups of this instance are seen or touched.
            pull: Brings an image to this machine. Its errors leave `start` as they are, so it
                raises RuntimeFailure, or RuntimeUnknownError while the registry is away.
        """
        self._instance = instance
        self._groups = state_dir.absolute() / "groups"
        self._logs = state_dir.absolute() / "logs"
        self._trees = Trees(state_dir.absolute() / "store" / "trees", pull)
        self._watch = Watch()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._starting: dict[str, asyncio.Timeout] = {}

    async def start(self, spec: GroupSpec) -> str:
        """Start the group; see the contract. A start that was interrupted is completed."""
        _check_names(spec)
        async with self._turn(spec.group):
            try:
                async with asyncio.timeout(None) as scope:
                    self._starting[spec.group] = scope
                    return await self._start(spec)
            except TimeoutError:
                if not scope.expired():
                    raise
                raise RuntimeFailure(
                    f"embedded: group {spec.group} was told to stop while it was starting. "
                    "Nothing of it is left."
                ) from None
            finally:
                del self._starting[spec.group]

    async def stop(self, group: str) -> None:
        """End the group and forget it, except for its logs."""
        if (scope := self._starting.get(group)) is not None and not scope.expired():
            scope.reschedule(0)
        async with self._turn(group):
            await self._remove(GroupFolder(self._groups / group))

    async def list(self) -> tuple[GroupStatus, ...]:
        """Return the groups of this instance. Those that run are watched from now on."""
        found = await asyncio.to_thread(self._scan)
        for folder, status in found:
            if status.state is GroupState.running and self._is_settled(status.group):
                self._watch.add(folder)
        return tuple(status for _, status in found)

    async def watch(self) -> AsyncIterator[GroupStatus]:
        """Yield each group that ended by itself, once. Meant for one listener."""
        while True:
            yield await self._watch.ended.get()

    async def logs(self, group: str, *, tail: int | None, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the group wrote; a group that is gone is remembered for a while."""
        folder = GroupFolder(self._groups / group)
        names = tuple(container.path.name for container in folder.containers())
        place = folder.path
        if not names:
            place = self._logs / group
            names = _sub_folders(place) if _NAME.fullmatch(group) else ()
        if not names:
            raise RuntimeFailure(
                f'embedded: there is no group "{group}", and no logs of it are kept. '
                "`trafficmgr status` lists those that run."
            )
        async for chunk in read(
            open_logs(place, names), tail=tail, is_followed=lambda: follow and _runs(folder)
        ):
            yield chunk

    async def close(self) -> None:
        """Let go of the groups; they run on."""
        self._watch.close()

    # -- starting ---------------------------------------------------------------------------------

    async def _start(self, spec: GroupSpec) -> str:
        folder = GroupFolder(self._groups / spec.group)
        status = await asyncio.to_thread(folder.status)
        if status is None:
            await self._bring_up(spec, folder)
        elif status.state is GroupState.exited:
            raise RuntimeFailure(
                f"embedded: group {spec.group} has ended ({status.reason}) and is never started "
                "again. No traffic goes there. Stop it, and start another one."
            )
        self._watch.add(folder)
        record = folder.record()
        return record.spec.address if record is not None else spec.address

    async def _bring_up(self, spec: GroupSpec, folder: GroupFolder) -> None:
        processes = await self._processes(spec)
        try:
            await _to_its_end(folder.create, spec, processes)
            await _all(
                _to_its_end(launch, spec.group, container) for container in folder.containers()
            )
        except RuntimeFailure:
            await self._remove(folder)
            raise
        except OSError as error:
            await self._remove(folder)
            raise RuntimeUnknownError(
                f"embedded: cannot start group {spec.group} in {folder.path}: {error}. Nothing of "
                "it runs, and traffic stays where it is. Make room or access there; it is tried "
                "again."
            ) from error

    async def _processes(self, spec: GroupSpec) -> tuple[ProcessSpec, ...]:
        images = {image.container: image for image in spec.images}
        containers = spec.template.containers
        trees = await _all(self._trees.get(images[one.name]) for one in containers)
        return tuple(
            process_spec(spec, container, tree, os.environ)
            for container, tree in zip(containers, trees, strict=True)
        )

    # -- ending -----------------------------------------------------------------------------------

    async def _remove(self, folder: GroupFolder) -> None:
        if not _NAME.fullmatch(folder.group):
            return
        if not await asyncio.to_thread(folder.may_be_removed_by, self._instance):
            return
        self._watch.forget(folder.group)
        for container in reversed(folder.containers()):
            await end(container)
        await asyncio.to_thread(folder.remove, self._logs)

    def _scan(self) -> tuple[tuple[GroupFolder, GroupStatus], ...]:
        found = ((folder, folder.status()) for folder in groups(self._groups, self._instance))
        return tuple((folder, status) for folder, status in found if status is not None)

    def _turn(self, group: str) -> asyncio.Lock:
        """Return the group's lock, which exists as long as someone holds or awaits it."""
        turn = self._turns.get(group)
        if turn is None:
            self._turns[group] = turn = asyncio.Lock()
        return turn

    def _is_settled(self, group: str) -> bool:
        """Whether no stop is under way, which must not be mistaken for an end."""
        turn = self._turns.get(group)
        return turn is None or not turn.locked()


async def _all(several: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """Wait for all of them, then raise the first error if there was one, as it is.

    Not a TaskGroup: that would cancel the others and wrap the error.
    """
    results = await asyncio.gather(*several, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def _to_its_end(work: Callable[..., None], *args: object) -> None:
    """Run it in a thread; if cancelled, wait for its end first.

    What a thread does goes on anyway, and a stop must not remove a folder under it. Here that is
    some 20 ms.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.exception()  # of no interest any more
        raise


def _check_names(spec: GroupSpec) -> None:
    for name in (spec.group, *(container.name for container in spec.template.containers)):
        if not _NAME.fullmatch(name):
            raise RuntimeFailure(
                f'embedded: cannot start group "{spec.group}": the name "{name}" may only have '
                "letters, digits, dots, dashes and underscores. Nothing was started."
            )


def _sub_folders(place: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in place.iterdir())) if place.is_dir() else ()


def _runs(folder: GroupFolder) -> bool:
    status = folder.status()
    return status is not None and status.state is GroupState.running
