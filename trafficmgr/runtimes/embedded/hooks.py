"""pre_stop: what a container wants done before it is told to end.

A command runs as `exec` would run it; an http hook is a GET to the group's address. Either has the
container's grace. What fails is written into the container's log, and the container ends anyway.
"""

import asyncio
from http import HTTPStatus

import aiohttp

from trafficmgr.core.template import ExecCheck, HttpCheck
from trafficmgr.runtimes.contract import ContainerState, RuntimeFailure
from trafficmgr.runtimes.embedded import loglines
from trafficmgr.runtimes.embedded.commands import run_inside
from trafficmgr.runtimes.embedded.folders import ContainerFolder, GroupFolder
from trafficmgr.runtimes.embedded.states import Seen

_TOLD_CHARACTERS = 300


async def before_stop(folder: GroupFolder, container: ContainerFolder) -> None:
    """Do what the container wants done before its end, if it runs; raises nothing."""
    record = folder.record()
    templates = record.spec.template.containers if record is not None else ()
    template = next((one for one in templates if one.name == container.path.name), None)
    if record is None or template is None or template.pre_stop is None:
        return
    if Seen(container, is_init=False).status.state is not ContainerState.running:
        return
    try:
        async with asyncio.timeout(template.stop_grace_s):
            match template.pre_stop:
                case ExecCheck(command=command):
                    complaint = await _exec(folder, template.name, command)
                case HttpCheck(port=port, path=path):
                    complaint = await _get(f"http://{record.spec.address}:{port}{path}")
    except TimeoutError:
        complaint = f"it was not done within the grace of {template.stop_grace_s:g} s"
    if complaint:
        log = container.log_files()[-1]
        await asyncio.to_thread(loglines.append, log, f"trafficmgr: pre_stop failed: {complaint}")


async def _exec(folder: GroupFolder, name: str, command: tuple[str, ...]) -> str:
    """Run the command; return what was wrong with it."""
    try:
        session = await run_inside(folder, name, command, has_tty=False)
    except RuntimeFailure as error:
        return str(error)
    try:
        await session.send(b"")
        said = b""
        async for _, data in session.output():
            said = (said + data)[-_TOLD_CHARACTERS:]
        code = await session.exit_code()
    finally:
        await session.close()
    words = " ".join(said.decode(errors="replace").split())
    return f"exit code {code}: {words}" if code else ""


async def _get(url: str) -> str:
    """Ask for the page; return what was wrong with it."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as client,
            client.get(url, allow_redirects=False) as answer,
        ):
            is_fine = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
            return "" if is_fine else f"{url} answered {answer.status}"
    except (aiohttp.ClientError, OSError) as error:
        return f"{url}: {error}"
