"""The controller: loop, hands, ears, registry and admin API, wired together."""

import asyncio
import os
from pathlib import Path
from typing import Any

import structlog

from trafficmgr.admin.address import socket_path
from trafficmgr.admin.api import serve
from trafficmgr.admin.house import LiveHouse, brief_digest, image_views
from trafficmgr.admin.reports import LiveReports
from trafficmgr.config.settings import Settings
from trafficmgr.controller import recovery, tidy
from trafficmgr.controller.accepted import is_ending
from trafficmgr.controller.calls import Calls
from trafficmgr.controller.checks import Asker
from trafficmgr.controller.configuring import Configuring, beside_tables
from trafficmgr.controller.hands import Hands
from trafficmgr.controller.images import ImageWatch
from trafficmgr.controller.judge import Judge
from trafficmgr.controller.kernel import KernelWatch
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop, Mind
from trafficmgr.controller.outputs import HookOutputs
from trafficmgr.controller.ports import boottime
from trafficmgr.controller.prober import Prober
from trafficmgr.controller.receipts import ReceiptBook, wall_clock
from trafficmgr.controller.secrets import SecretStore
from trafficmgr.controller.smoke import SmokeTest
from trafficmgr.controller.supervision import Supervision
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.state import EndpointState
from trafficmgr.journal.sqlite import Journal
from trafficmgr.registry.errors import RegistryError
from trafficmgr.registry.images import Images
from trafficmgr.registry.poller import Poller
from trafficmgr.runtimes.contract import Runtime
from trafficmgr.runtimes.embedded.identity import boot_id

KEPT_EVENTS = 100_000
"""Some thousand rollouts; older ones are dropped at a start. The states do not need them."""

log = structlog.get_logger()


class Controller:
    """Everything that runs in the controller process, wired together."""

    def __init__(
        self,
        *,
        settings: Settings,
        file: Path,
        hangup: asyncio.Event,
        supervision: Supervision,
        journal: Journal,
        runtime: Runtime,
        instance: str,
        mind: Mind,
        images: Images,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.settings = settings
        self.file = file
        self.hangup = hangup
        self.supervision = supervision
        self.journal = journal
        self.runtime = runtime
        self.instance = instance
        self.tasks = tasks
        self.loop = Loop(mind=mind, journal=journal, clock=boottime, act=self.act, look=self.look)
        tell = self.loop.tell
        self.link = Link(state_dir=settings.state_dir, tell=tell, clock=boottime)
        self.secrets = SecretStore(settings.secrets)
        self.prober = Prober(tasks=tasks, tell=tell, clock=boottime, runtime=runtime)
        self.kernel = KernelWatch(tell=tell, clock=boottime)
        self.judge = self._made_judge()
        self.calls = Calls(tell=tell, clock=boottime)
        self.registries = images
        self.images = ImageWatch(tell=tell, clock=boottime)
        self.poller = Poller(images, on_seen=self.images.on_seen, on_trouble=_no_news)
        self.configuring = Configuring(
            settings,
            loop=self.loop,
            clock=boottime,
            link=self.link,
            images=self.images,
            poller=self.poller,
            registries=images,
            follow=self.follow,
        )
        self.book = self._made_book()
        self.hands = self._made_hands()
        self.house = self._made_house()
        self.is_acting = False

    def _made_book(self) -> ReceiptBook:
        return ReceiptBook(
            store=self.journal,
            ledger=self.link.ledger,
            clock=boottime,
            wall=wall_clock,
            outputs=HookOutputs(runtime=self.runtime, answered=self.calls.output),
        )

    def _made_hands(self) -> Hands:
        return Hands(
            tasks=self.tasks,
            runtime=self.runtime,
            workers=self.link,
            supervisor=self.supervision,
            tell=self.loop.tell,
            clock=boottime,
            instance=self.instance,
            secrets=self.secrets.read,
            calls=self.calls,
            smoke=SmokeTest(
                tell=self.loop.tell,
                clock=boottime,
                doors=self.supervision.listen["http"],
                workers=self.supervision.slots,
            ),
        )

    def _made_judge(self) -> Judge:
        asker = Asker(runtime=self.runtime, clock=boottime)
        return Judge(
            tasks=self.tasks,
            tell=self.loop.tell,
            clock=boottime,
            ledger=self.link.ledger,
            ask=asker.ask,
        )

    def _made_house(self) -> LiveHouse:
        return LiveHouse(
            loop=self.loop,
            link=self.link,
            journal=self.journal,
            runtime=self.runtime,
            supervisor=self.supervision,
            registry=self.registry_view,
            configuring=self.configuring,
            clock=boottime,
            state_dir=self.settings.state_dir,
            listen=self.supervision.listen,
            tasks=self.tasks,
            verdicts=self.judge.view,
        )

    def follow(self, settings: Settings) -> None:
        """Go by other settings in what nobody decides about."""
        self.secrets.use(settings.secrets)
        self.runtime.keep_logs(settings.keep_logs_s)

    def act(self, commands: tuple[AnyCommand, ...]) -> None:
        """Let the hands act, once the world was looked at."""
        if self.is_acting:
            self.hands.act(commands)

    def look(self, fleet: Fleet) -> None:
        """Show the newest state to the ears, and to the book of receipts from the very first."""
        self.book.look(fleet)
        if self.is_acting:
            self.prober.look(fleet)
            self.kernel.look(fleet)
            self.judge.look(fleet)

    async def begin(self) -> None:
        """Take over, in the order that this package's first lines explain."""
        settings, loop, tasks = self.settings, self.loop, self.tasks
        await self.book.load()
        tasks.create_task(self.book.run(), name="receipts")
        tasks.create_task(loop.run(), name="loop")
        await recovery.begin(
            loop,
            boottime,
            boot_id=boot_id(),
            slots=self.supervision.slots,
            settings=settings,
        )
        await self.supervision.catch_up(loop.tell, self.link)
        is_known = await recovery.observe(loop, boottime, self.runtime)
        self.is_acting = is_known
        if is_ending(settings.state_dir):
            await self.house.stop(groups=True)
        else:
            await self.configuring.tell_all()
        recovery.forget_tables(settings.state_dir, loop.fleet)
        for state in loop.fleet.endpoints.values():
            await self.link.publish(state.table)
        await self.link.publish_zones(*beside_tables(settings))
        self.images.know(loop.fleet)
        tasks.create_task(self.supervision.listen_on(loop.tell, self.link), name="supervision")
        tasks.create_task(recovery.hear_ends(loop, boottime, self.runtime), name="ends")
        tasks.create_task(self.keep_in_touch(is_known=is_known), name="touch")
        tasks.create_task(recovery.sweep(loop, self.runtime), name="sweep")
        tasks.create_task(tidy.run(loop, self.runtime, self.registries), name="tidy")
        tasks.create_task(self.journal.compact(KEPT_EVENTS), name="compact")
        tasks.create_task(self.kernel.run(), name="kernel")
        tasks.create_task(self.poller.run(), name="poller")
        tasks.create_task(self.serve_workers(), name="link")
        tasks.create_task(self.serve_admin(), name="admin")
        self.configuring.watch_all()
        tasks.create_task(self.reload_on(self.hangup), name="reload")
        log.info(
            "controller_started",
            pid=os.getpid(),
            endpoints=len(settings.endpoints),
            config=settings.path,
        )

    async def keep_in_touch(self, *, is_known: bool) -> None:
        """Know whether the engine is there, until cancelled; the hands begin once it was seen."""

        def found() -> None:
            self.is_acting = True

        await recovery.keep_in_touch(
            self.loop, boottime, self.runtime, is_known=is_known, found=found
        )

    async def serve_workers(self) -> None:
        """Let workers connect until cancelled."""
        async with self.link.opened():
            await asyncio.Event().wait()

    async def serve_admin(self) -> None:
        """Answer operators until cancelled."""
        reports = LiveReports(
            loop=self.loop,
            ledger=self.link.ledger,
            book=self.book,
            kept=self.journal,
            failing=self.is_registry_failing,
        )
        async with serve(self.house, socket_path(self.settings.state_dir), reports):
            await asyncio.Event().wait()

    async def reload_on(self, hangup: asyncio.Event) -> None:
        """Apply FILE again at each SIGHUP, until cancelled. What is wrong with it is logged."""
        while True:
            await hangup.wait()
            hangup.clear()
            try:
                await self.house.reload(self.file)
            except TrafficmgrError as error:
                log.error("config_refused", file=self.file, reason=str(error))  # noqa: TRY400  a sentence

    def registry_view(self, state: EndpointState) -> list[Any]:
        """Return what the poller knows of an endpoint's images."""
        now = boottime()
        known = {
            (image.repository, image.tag): {
                "image": f"{image.repository}:{image.tag}",
                "digest": brief_digest(image.digest),
                "checked_s_ago": _ago(image.checked_at, now),
                "trouble": image.trouble,
                "trouble_for_s": _ago(image.trouble_since, now),
            }
            for image in self.poller.status()
        }
        return image_views(state, known)

    def is_registry_failing(self, endpoint: str) -> bool:
        """Return whether the last look at one of an endpoint's images failed."""
        containers = self.loop.fleet.endpoints[endpoint].settings.template.every_container()
        wanted = {(container.image, container.tag) for container in containers}
        return any(
            image.trouble and (image.repository, image.tag) in wanted
            for image in self.poller.status()
        )


def _ago(at: float | None, now: float) -> float | None:
    return None if at is None else round(now - at, 1)


async def _no_news(repository: str, tag: str, error: RegistryError) -> None:
    """Log that a tag can't be read; the poller keeps what `status` shows, and tries again."""
    log.warning("registry_trouble", image=f"{repository}:{tag}", reason=str(error))
