"""The composition root: the only place where concrete things meet Protocols.

`python -m trafficmgr.service --config FILE --state-dir DIR --supervisor-fd FD` is the controller
process. The supervisor starts it, and starts it again whenever it ends. The order of what happens
here matters:

    lock, journal, then "a controller started";
    what the supervisor has to tell of dead workers, before any worker may say hello;
    what the runtime runs, before anything is decided about it;
    then everything at once: link, ears, registry, admin API.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import uvloop

from trafficmgr.admin.api import serve
from trafficmgr.admin.house import LiveHouse, brief_digest, image_views
from trafficmgr.admin.reports import LiveReports
from trafficmgr.config.load import ConfigError
from trafficmgr.config.settings import Settings
from trafficmgr.controller import recovery
from trafficmgr.controller.accepted import settings_at_start
from trafficmgr.controller.configuring import Configuring, registry_access
from trafficmgr.controller.files import replace_file
from trafficmgr.controller.hands import Hands
from trafficmgr.controller.images import ImageWatch
from trafficmgr.controller.kernel import KernelWatch
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop, Mind, restored
from trafficmgr.controller.ports import boottime
from trafficmgr.controller.prober import Prober
from trafficmgr.controller.receipts import ReceiptBook, wall_clock
from trafficmgr.controller.supervision import Supervision
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import ImageDigest
from trafficmgr.core.state import EndpointState
from trafficmgr.journal.sqlite import Journal
from trafficmgr.registry.errors import (
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    StoreError,
)
from trafficmgr.registry.images import Images
from trafficmgr.registry.poller import Poller
from trafficmgr.registry.store import BlobStore
from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded import EmbeddedRuntime, pool
from trafficmgr.wire.images import LocalImage

KEPT_EVENTS = 100_000
"""Some thousand rollouts; older ones are dropped at a start. The states do not need them."""

log = structlog.get_logger()


class Stopped(Exception):  # noqa: N818  not an error: SIGTERM ends the task group in order
    """The supervisor asked us to end."""


async def run(settings: Settings, file: Path, supervisor_fd: int) -> None:
    """Be the controller until SIGTERM; on SIGHUP read the file again."""
    clock = boottime
    async with AsyncExitStack() as held:
        _lock(held, settings.state_dir)
        held.enter_context(pool.locked(settings.address_pool))
        supervision = await Supervision.attached(supervisor_fd, clock)
        held.callback(supervision.close)
        journal = await Journal.open(settings.state_dir / "journal.db")
        held.push_async_callback(journal.close)
        store = BlobStore(settings.state_dir / "store")
        held.callback(store.close)
        await asyncio.to_thread(store.sweep)
        images = Images(store, registry_access(settings))
        held.push_async_callback(images.close)
        runtime = EmbeddedRuntime(
            state_dir=settings.state_dir,
            instance=_instance(settings.state_dir),
            pull=_Pull(images),
        )
        held.push_async_callback(runtime.close)
        mind = Mind(restored((await journal.load()).states))
        hangup = asyncio.Event()
        tasks = await held.enter_async_context(_until_stopped(hangup))
        controller = _Controller(
            settings=settings,
            file=file,
            hangup=hangup,
            supervision=supervision,
            journal=journal,
            runtime=runtime,
            mind=mind,
            images=images,
            tasks=tasks,
        )
        await controller.begin()


class _Controller:
    """Everything that runs in the controller process, wired together."""

    def __init__(
        self,
        *,
        settings: Settings,
        file: Path,
        hangup: asyncio.Event,
        supervision: Supervision,
        journal: Journal,
        runtime: EmbeddedRuntime,
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
        self.tasks = tasks
        self.loop = Loop(mind=mind, journal=journal, clock=boottime, act=self.act, look=self.look)
        tell = self.loop.tell
        self.link = Link(state_dir=settings.state_dir, tell=tell, clock=boottime)
        self.prober = Prober(tasks=tasks, tell=tell, clock=boottime)
        self.kernel = KernelWatch(tell=tell, clock=boottime)
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
        )
        self.book = ReceiptBook(
            store=journal, ledger=self.link.ledger, clock=boottime, wall=wall_clock
        )
        self.hands = self._made_hands()
        self.house = self._made_house()
        self.is_acting = False

    def _made_hands(self) -> Hands:
        return Hands(
            tasks=self.tasks,
            runtime=self.runtime,
            workers=self.link,
            supervisor=self.supervision,
            tell=self.loop.tell,
            clock=boottime,
            instance=_instance(self.settings.state_dir),
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
        )

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

    async def begin(self) -> None:
        """Take over, in the order that this module's first lines explain."""
        settings, loop, tasks = self.settings, self.loop, self.tasks
        await self.book.load()
        tasks.create_task(self.book.run(), name="receipts")
        tasks.create_task(loop.run(), name="loop")
        await recovery.begin(
            loop,
            boottime,
            boot_id=_boot_id(),
            slots=self.supervision.slots,
            settings=settings,
        )
        await self.supervision.catch_up(loop.tell, self.link)
        await recovery.observe(loop, boottime, self.runtime)
        self.is_acting = True
        await self.configuring.tell_all()
        recovery.forget_tables(settings.state_dir, loop.fleet)
        for state in loop.fleet.endpoints.values():
            await self.link.publish(state.table)
        await self.link.publish_zones(settings.zones, settings.advertise)
        self.images.know(loop.fleet)
        tasks.create_task(self.supervision.listen_on(loop.tell, self.link), name="supervision")
        tasks.create_task(recovery.hear_ends(loop, boottime, self.runtime), name="ends")
        tasks.create_task(recovery.sweep(loop, self.runtime), name="sweep")
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
        async with serve(self.house, self.settings.state_dir / "admin.sock", reports):
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
        containers = self.loop.fleet.endpoints[endpoint].settings.template.containers
        wanted = {(container.image, container.tag) for container in containers}
        return any(
            image.trouble and (image.repository, image.tag) in wanted
            for image in self.poller.status()
        )


class _Pull:
    """Images as a runtime wants them: its own errors, and unknown told apart from failed."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def __call__(self, image: ImageDigest) -> LocalImage:
        try:
            return await self._images.pull(image)
        except (RegistryUnreachableError, RateLimitedError, StoreError) as error:
            raise RuntimeUnknownError(str(error)) from error
        except RegistryError as error:
            raise RuntimeFailure(str(error)) from error


def _ago(at: float | None, now: float) -> float | None:
    return None if at is None else round(now - at, 1)


async def _no_news(repository: str, tag: str, error: RegistryError) -> None:
    """Log that a tag can't be read; the poller keeps what `status` shows, and tries again."""
    log.warning("registry_trouble", image=f"{repository}:{tag}", reason=str(error))


@asynccontextmanager
async def _until_stopped(hangup: asyncio.Event) -> AsyncIterator[asyncio.TaskGroup]:
    """Yield a task group that SIGTERM ends in order; SIGHUP sets the event."""
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    running.add_signal_handler(signal.SIGTERM, stop.set)
    running.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor owns Ctrl-C
    running.add_signal_handler(signal.SIGHUP, hangup.set)

    async def wait_for_stop() -> None:
        await stop.wait()
        raise Stopped

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait_for_stop(), name="stop")
            yield tasks
    except* Stopped:
        log.info("controller_stopped", means="groups keep running")


def _lock(held: AsyncExitStack, state_dir: Path) -> None:
    """Hold the controller's own lock: two of them would undo each other's work."""
    file = held.enter_context((state_dir / "controller.lock").open("a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TrafficmgrError(
            f"another controller still holds {state_dir / 'controller.lock'}; workers serve on."
            " This one ends and is tried again."
        ) from None


def _instance(state_dir: Path) -> str:
    """Return the name of this installation, made at its first start."""
    path = state_dir / "instance"
    if not path.exists():
        replace_file(path, secrets.token_hex(8).encode())
    return path.read_text()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _configure_logging() -> None:
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], drop_missing=True
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> int:
    """Run the controller process; the exit code is 1 when it could not start."""
    parser = argparse.ArgumentParser(prog="trafficmgr.service")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--supervisor-fd", type=int, required=True)
    given = parser.parse_args()
    _configure_logging()
    try:
        settings = settings_at_start(given.state_dir, given.config)
        uvloop.run(run(settings, given.config, given.supervisor_fd))
    except (ConfigError, TrafficmgrError, OSError) as error:
        log.error("controller_failed", reason=str(error))  # noqa: TRY400  a sentence
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
