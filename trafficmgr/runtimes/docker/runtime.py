"""Container groups on the Docker Engine (DESIGN 8), and on what speaks as it does.

`start` brings a group up (`starting.py`), `list` looks at all of them (`seen.py`), `watch` tells
which ended (`watching.py`), `stop` ends one (`ending.py`). What is remembered is on the engine
alone, in labels; a new controller knows all that the old one knew.

The engine may be away at any time. Then everything raises RuntimeUnknownError: nothing is known,
and nothing has failed.

Starts and stops of the same group take turns; a stop does not wait for a start that is under way,
it ends it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from trafficmgr.runtimes.contract import (
    EVERYTHING,
    NO_SECRETS,
    ContainerStats,
    ExecSession,
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
from trafficmgr.runtimes.docker import names
from trafficmgr.runtimes.docker.cgroups import GroupLimits
from trafficmgr.runtimes.docker.ending import Ender
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import EngineRefusal
from trafficmgr.runtimes.docker.gaps import gaps
from trafficmgr.runtimes.docker.images import Images
from trafficmgr.runtimes.docker.kept import KeptLogs
from trafficmgr.runtimes.docker.logs import Reader
from trafficmgr.runtimes.docker.network import GroupNetwork
from trafficmgr.runtimes.docker.pausing import Pauses
from trafficmgr.runtimes.docker.seen import Eyes, SeenGroup
from trafficmgr.runtimes.docker.sessions import begin
from trafficmgr.runtimes.docker.starting import Starter
from trafficmgr.runtimes.docker.usage import usage
from trafficmgr.runtimes.docker.watching import Watch
from trafficmgr.runtimes.turns import Turns


class DockerRuntime(Runtime):
    """Groups as containers of one engine."""

    def __init__(
        self,
        *,
        base_url: str,
        instance: str,
        address_pool: str,
        state_dir: Path,
        keep_logs_s: float,
        credentials: Callable[[str], Awaitable[tuple[str, str] | None]],
        pause_image: str = "",
    ) -> None:
        """Know the groups of an instance on an engine, which need not be there yet.

        Args:
            base_url: The engine's socket, `unix:///...`.
            instance: Only groups of this instance are seen or touched.
            address_pool: The IPv4 network that groups have their addresses from.
            state_dir: Where `logs/` is, or will be.
            keep_logs_s: How long the logs of groups that are gone are kept.
            credentials: Repository -> user and password, if there are any.
            pause_image: Another pause image than ours.
        """
        self._turns = Turns("docker")
        self._engine = Engine(base_url)
        self._eyes = Eyes(self._engine, instance)
        images = Images(self._engine, credentials, instance=instance)
        self._images = images
        self._limits = GroupLimits(instance)
        self._network = GroupNetwork(self._engine, instance=instance, pool=address_pool)
        self._starter = Starter(
            self._engine,
            limits=self._limits,
            network=self._network,
            images=images,
            pauses=Pauses(self._engine, images, pause_image),
        )
        self._kept = KeptLogs(state_dir.absolute() / "logs", keep_logs_s)
        self._ender = Ender(self._engine, instance=instance, kept=self._kept, limits=self._limits)
        self._watch = Watch(
            self._engine, instance=instance, eyes=self._eyes, is_settled=self._turns.is_settled
        )

    @property
    def gaps(self) -> Mapping[str, str]:
        """Return behaviour -> why not here."""
        return gaps(self._engine.facts, self._limits)

    async def start(self, spec: GroupSpec, secrets: Secrets = NO_SECRETS) -> str:
        """Start the group; see the contract. A start that was broken off is undone first."""
        names.check(spec)
        async with self._turns.start(spec.group):
            return await self._start(spec, secrets)

    async def stop(self, group: str) -> None:
        """End the group and forget it, except for its logs."""
        async with self._turns.stop(group):
            self._watch.forget(group)
            if not names.is_name(group):
                return
            seen = await self._eyes.group(group)
            if seen is not None and seen.is_whole:
                await self._ender.end(seen)
            await self._remove(group)
        await self._clear_up()

    async def list(self) -> tuple[GroupStatus, ...]:
        """Return the groups of this instance. Those that run are watched from now on."""
        found = await self._eyes.groups()
        statuses = tuple(self._watch.judged(group) for group in found)
        for group, status in zip(found, statuses, strict=True):
            is_running = status.state is GroupState.running
            if is_running and group.is_whole and self._turns.is_settled(group.group):
                self._watch.add(group.group)
        return statuses

    async def watch(self) -> AsyncIterator[GroupStatus]:
        """Yield each group that ended by itself, once. Meant for one listener."""
        async for status in self._watch.ends():
            yield status

    async def logs(self, group: str, query: LogQuery = EVERYTHING) -> AsyncIterator[bytes]:
        """Yield what the group wrote; a group that is gone is remembered for a while."""
        reader = Reader(
            self._engine, kept=self._kept, look=self._eyes.group, group=group, query=query
        )
        async for chunk in reader.chunks():
            yield chunk

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> ExecSession:
        """Run a command inside a container ("" is the first), with its environment."""
        seen = await self._seen(group)
        members = () if seen.spec is None else seen.spec.template.containers
        name = container or (members[0].name if members else "")
        found = seen.others.get(name)
        if found is None or not found.is_running:
            raise RuntimeFailure(
                f'docker: group {group} has no container "{name}" that runs. Nothing was run. '
                f"`trafficmgr show {seen.endpoint} {group}` lists its containers."
            )
        try:
            return await begin(self._engine, found, command, has_tty=has_tty)
        except EngineRefusal as refusal:
            raise RuntimeFailure(
                f'docker: "{command[0]}" can\'t be run in container "{name}" of group {group}: '
                f"{refusal.said}. The container runs on as it was. Look what its image has."
            ) from refusal

    async def stats(self, group: str) -> tuple[ContainerStats, ...]:
        """Return what the group's containers have used since they started."""
        return await usage(self._engine, await self._seen(group))

    def keep_logs(self, seconds: float) -> None:
        """Keep the logs of groups that are gone for so long from now on."""
        self._kept.keep_s = seconds

    async def keep_images(self, digests: frozenset[str]) -> ImagesRemoved:
        """Unpin all images but these, and those that containers are made of."""
        return await self._images.keep(digests)

    async def close(self) -> None:
        """Let go of the engine; the groups run on."""
        await self._watch.close()
        self._engine.close()

    async def _seen(self, group: str) -> SeenGroup:
        seen = await self._eyes.group(group) if names.is_name(group) else None
        if seen is None:
            raise RuntimeFailure(
                f'docker: there is no group "{group}". `trafficmgr status` lists those that run.'
            )
        return seen

    # -- starting and ending ----------------------------------------------------------------------

    async def _start(self, spec: GroupSpec, secrets: Secrets) -> str:
        seen = await self._eyes.group(spec.group)
        if seen is not None and seen.is_whole:
            return self._address(seen)
        if seen is not None:
            await self._remove(spec.group)
        try:
            await self._starter.bring_up(spec, secrets)
        except RuntimeUnknownError:
            raise  # what is there is undone, or taken for what it is, when it is tried again
        except RuntimeFailure:
            await self._remove(spec.group)
            await self._clear_up(but_for=spec.group)
            raise
        self._watch.add(spec.group)
        return spec.address

    def _address(self, seen: SeenGroup) -> str:
        """Return the address of a group that was started before."""
        assert seen.spec is not None, "a whole group has one"  # noqa: S101  an invariant, stays on
        status = seen.status()
        if status.state is GroupState.exited:
            raise RuntimeFailure(
                f"docker: group {seen.group} has ended ({status.reason}) and is never started "
                "again. No traffic goes there. Stop it, and start another one."
            )
        self._watch.add(seen.group)
        return seen.spec.address

    async def _remove(self, group: str) -> None:
        """Remove all that is there of a group."""
        seen = await self._eyes.group(group)
        if seen is not None:
            await self._ender.remove(seen)
        await self._ender.sweep(group)

    async def _clear_up(self, *, but_for: str = "") -> None:
        """Remove what all groups share when the last one has gone.

        Args:
            but_for: The group whose start has just failed, and which is still taken for starting.
        """
        if not self._turns.starting() - {but_for} and not await self._eyes.groups():
            with suppress(EngineRefusal):  # then the next last group takes it along
                await self._network.remove_if_unused()
