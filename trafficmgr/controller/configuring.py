"""A running service gets another config: all of it or nothing.

    1. read it as a whole; a mistake anywhere and nothing is changed
    2. refuse what needs a restart, and what would leave groups without their secrets
    3. keep it where the next controller starts from (accepted.py)
    4. tell the single writer, workers, registry and poller what is different

After 3 it counts. A controller that is killed in the middle of 4 is succeeded by one that starts
from the new config, and 4 asks for what should be and not for what has to be done, so that doing
it again is harmless.
"""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from trafficmgr.config.load import Look, load
from trafficmgr.config.settings import EndpointConfig, Settings
from trafficmgr.controller import accepted
from trafficmgr.controller.images import ImageWatch
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop
from trafficmgr.controller.plan import Changed, Fate, Needed, Plan, compared
from trafficmgr.controller.ports import Clock
from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.core.errors import NotPossibleNowError, TrafficmgrError
from trafficmgr.core.events import EndpointRemoved, Event, LimitsApplied, SettingsApplied
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import short
from trafficmgr.core.traffic import Front
from trafficmgr.registry.credentials import RegistryAccess
from trafficmgr.registry.images import Images
from trafficmgr.registry.poller import Poller

Polled = tuple[str, str, float]
"""Repository, tag and interval, as a poller watches them."""

log = structlog.get_logger()


class Configuring:
    """Holds the settings that count, and replaces them."""

    def __init__(
        self,
        settings: Settings,
        *,
        loop: Loop,
        clock: Clock,
        link: Link,
        images: ImageWatch,
        poller: Poller,
        registries: Images,
        follow: Callable[[Settings], None] = lambda _: None,
    ) -> None:
        """Hold them.

        Args:
            settings: Those that count at the start.
            loop: The single writer.
            clock: The clock of its events.
            link: The workers.
            images: Who hears of new images.
            poller: Who asks for them.
            registries: How registries are reached.
            follow: Called with settings as soon as they count: for what else goes by them
                (`keep_logs`, `secrets`).
        """
        self.settings = settings
        self._loop = loop
        self._clock = clock
        self._link = link
        self._images = images
        self._poller = poller
        self._registries = registries
        self._follow = follow
        self._one_at_a_time = asyncio.Lock()

    # -- at the start -------------------------------------------------------------------------

    async def tell_all(self) -> None:
        """Tell the single writer of the settings; what did not change leaves no trace."""
        await self._tell(list(_wanted(self.settings, self._loop.fleet, self._clock())))

    def watch_all(self) -> None:
        """Begin to watch the images of all endpoints."""
        for config in self.settings.endpoints.values():
            self._images.watch(config.settings)
            for polled in _polled(config):
                self._poller.watch(*polled)

    # -- while it runs ------------------------------------------------------------------------

    async def plan(self, path: Path, data: bytes) -> Plan:
        """Return what `apply` would do.

        Raises:
            ConfigError: The config can't be used.
        """
        return compared(self.settings, await _loaded(path, data), self._loop.fleet)

    async def apply(self, path: Path, data: bytes) -> Plan:
        """Let this be the config from now on; return what that changed.

        Raises:
            ConfigError: The config can't be used. Nothing is changed.
            NotPossibleNowError: It changes what needs a restart, or removes a secret that groups
                may yet be started with. Nothing is changed.
            TrafficmgrError: It can't be kept on disk. Nothing is changed.
        """
        async with self._one_at_a_time:
            new = await _loaded(path, data)
            plan = compared(self.settings, new, self._loop.fleet)
            if plan.restart:
                raise NotPossibleNowError(_needs_restart(path, plan.restart))
            if plan.needed:
                raise NotPossibleNowError(_needs_secrets(path, plan.needed))
            await self._keep(path, data)
            await self._carry_out(new)
            _log(path, plan)
            return plan

    async def _keep(self, path: Path, data: bytes) -> None:
        try:
            await asyncio.to_thread(accepted.keep, self.settings.state_dir, path, data)
        except OSError as error:
            raise TrafficmgrError(
                f"{path} can't be kept in {self.settings.state_dir}: {error.strerror or error}."
                f" Nothing is changed, and traffic flows on. Free some space and try again."
            ) from error

    async def _carry_out(self, new: Settings) -> None:
        """Tell everybody what is different. Settings go before what depends on them."""
        old, self.settings = self.settings, new
        self._follow(new)  # a group that starts from here on reads its secrets as they are now
        for name in old.endpoints.keys() - new.endpoints.keys():
            self._images.unwatch(name)
        await self._tell(list(_wanted(new, self._loop.fleet, self._clock())))
        for config in new.endpoints.values():  # not before the endpoint is known: it would be deaf
            self._images.watch(config.settings)
        if beside_tables(old) != beside_tables(new):
            await self._link.publish_zones(*beside_tables(new))
        reached_anew = self._registries.reach(registry_access(new))
        self._poll(old, new, reached_anew)
        for name in new.endpoints:
            await self._images.tell_newest(name)

    def _poll(self, old: Settings, new: Settings, reached_anew: frozenset[str]) -> None:
        """Watch what is wanted now; new watchers come before old ones go."""
        names = old.endpoints.keys() | new.endpoints.keys()
        pairs = [(_polled(old.endpoints.get(n)), _polled(new.endpoints.get(n))) for n in names]
        for before, after in pairs:
            for polled in after - before:
                self._poller.watch(*polled)
        for before, after in pairs:
            for polled in before - after:
                self._poller.unwatch(*polled)
            for repository, tag, _ in before & after:
                if repository.partition("/")[0] in reached_anew:
                    self._poller.poke(repository, tag)  # whatever failed may be well now

    async def _tell(self, events: list[Event]) -> None:
        """Tell all of them at once, so that they are one entry of the journal."""
        async with asyncio.TaskGroup() as telling:
            for event in events:
                telling.create_task(self._loop.tell(event))


def registry_access(settings: Settings) -> dict[str, RegistryAccess]:
    """Return how each registry is reached."""
    return {
        host: RegistryAccess(
            username=registry.username or "",
            password_file=str(registry.password_file or ""),
            is_insecure=registry.is_insecure,
        )
        for host, registry in settings.registries.items()
    }


def beside_tables(
    settings: Settings,
) -> tuple[tuple[Zone, ...], tuple[str, ...], Front, DnsPolicy]:
    """Return what workers know beside tables, as `Link.publish_zones` takes it."""
    return settings.zones, settings.advertise, settings.front, settings.dns


async def _loaded(path: Path, data: bytes) -> Settings:
    """Read a config in a thread: a large one takes seconds, and probes are waiting."""
    return await asyncio.to_thread(load, path, data, certificates=Look.needed)


def _wanted(settings: Settings, fleet: Fleet, now: float) -> Iterator[Event]:
    """Yield what the single writer has to hear to want what the settings say."""
    if fleet.max_concurrent != settings.max_concurrent:
        yield LimitsApplied(at=now, max_concurrent=settings.max_concurrent)
    for name, config in settings.endpoints.items():
        state = fleet.endpoints.get(name)
        if state is None or state.is_removed or state.settings != config.settings:
            yield SettingsApplied(at=now, endpoint=name, settings=config.settings)
    for name, state in fleet.endpoints.items():
        if name not in settings.endpoints and not state.is_removed:
            yield EndpointRemoved(at=now, endpoint=name)


def _polled(config: EndpointConfig | None) -> frozenset[Polled]:
    if config is None:
        return frozenset()
    every_s = config.update.every_s
    return frozenset((c.image, c.tag, every_s) for c in config.settings.template.every_container())


def _needs_restart(path: Path, changed: tuple[Changed, ...]) -> str:
    keys = ", ".join(
        f"{one.key} from {one.old or 'nothing'} to {one.new or 'nothing'}" for one in changed
    )
    return (
        f"{path} changes {keys}, which needs a restart. Nothing is changed, and traffic flows on."
        f" To change it, `trafficmgr stop` and then `trafficmgr run -c {path}`; groups run on."
    )


def _needs_secrets(path: Path, needed: tuple[Needed, ...]) -> str:
    named = " and ".join(
        f'secret "{one.secret}", with which revision {short(one.revision)} of {one.endpoint} runs'
        for one in needed
    )
    return (
        f"{path} no longer has {named}. If one of its groups were lost, none could take its place."
        f" Nothing is changed, and traffic flows on. Leave the secret there until no group runs"
        f" with it, and remove it then (`trafficmgr status` has the revisions)."
    )


def _log(path: Path, plan: Plan) -> None:
    names = {fate: [e.name for e in plan.endpoints if e.fate is fate] for fate in Fate}
    told = {fate.value: ",".join(names[fate]) for fate in (Fate.new, Fate.changed, Fate.removed)}
    log.info(
        "config_applied", file=str(path), **{key: value for key, value in told.items() if value}
    )
