"""The controller as a process: its arguments, what it holds open, its signals, its log."""

import argparse
import asyncio
import fcntl
import logging
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
import uvloop

from trafficmgr.config.load import ConfigError
from trafficmgr.config.settings import Settings
from trafficmgr.controller.accepted import settings_at_start
from trafficmgr.controller.configuring import registry_access
from trafficmgr.controller.files import replace_file
from trafficmgr.controller.loop import Mind, restored
from trafficmgr.controller.ports import boottime
from trafficmgr.controller.supervision import Supervision
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.journal.sqlite import Journal
from trafficmgr.registry.images import Images
from trafficmgr.registry.store import BlobStore
from trafficmgr.service.controller import Controller
from trafficmgr.service.runtime import opened_runtime

log = structlog.get_logger()


class Stopped(Exception):  # noqa: N818  not an error: SIGTERM ends the task group in order
    """The supervisor asked us to end."""


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


async def run(settings: Settings, file: Path, supervisor_fd: int) -> None:
    """Be the controller until SIGTERM; on SIGHUP read the file again."""
    clock = boottime
    async with AsyncExitStack() as held:
        _lock(held, settings.state_dir)
        supervision = await Supervision.attached(supervisor_fd, clock)
        held.callback(supervision.close)
        journal = await Journal.open(settings.state_dir / "journal.db")
        held.push_async_callback(journal.close)
        store = BlobStore(settings.state_dir / "store")
        held.callback(store.close)
        await asyncio.to_thread(store.sweep)
        images = Images(store, registry_access(settings))
        held.push_async_callback(images.close)
        instance = _instance(settings.state_dir)
        runtime = await held.enter_async_context(
            opened_runtime(settings, instance=instance, images=images)
        )
        mind = Mind(restored((await journal.load()).states))
        hangup = asyncio.Event()
        tasks = await held.enter_async_context(_until_stopped(hangup))
        controller = Controller(
            settings=settings,
            file=file,
            hangup=hangup,
            supervision=supervision,
            journal=journal,
            runtime=runtime,
            instance=instance,
            mind=mind,
            images=images,
            tasks=tasks,
        )
        await controller.begin()


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
