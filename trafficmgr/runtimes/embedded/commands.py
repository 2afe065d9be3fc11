"""Commands inside a container that runs: what they are given, and who may be asked for one.

Secrets are taken from the environment of the running process, since they are nowhere else. A
program that writes over its own environment (some do to set their title) has none to give.
"""

import os
from pathlib import Path

from trafficmgr.runtimes.contract import ContainerState, RuntimeFailure
from trafficmgr.runtimes.embedded.folders import GroupFolder
from trafficmgr.runtimes.embedded.process import ProcessSpec, executable
from trafficmgr.runtimes.embedded.session import Session, open_session
from trafficmgr.runtimes.embedded.spawning import Command
from trafficmgr.runtimes.embedded.states import Seen


async def run_inside(
    folder: GroupFolder, name: str, argv: tuple[str, ...], *, has_tty: bool
) -> Session:
    """Start a command in a container of the group ("" is the first).

    Raises:
        RuntimeFailure: There is no such container, it does not run, or has no such command.
    """
    container = folder.container(name)
    if container is None:
        raise _refusal(folder, name, "there is no such container", "`trafficmgr status` lists them")
    process = container.process()
    seen = Seen(container, is_init=False).status
    if process is None or seen.state is not ContainerState.running:
        raise _refusal(folder, name, "it does not run", "See what its logs say")
    if not argv:
        raise _refusal(folder, name, "no command was given", "Name one")
    path = executable(argv[0], process.rootfs or "/", process.cwd, process.env["PATH"], os.environ)
    if path is None:
        why = f'there is no executable "{argv[0]}", neither in the image nor on this host'
        raise _refusal(folder, name, why, "Correct the command")
    env = process.env | _secrets(process, seen.pid)
    try:
        return await open_session(
            process, Command(argv=(path, *argv[1:]), env=env, has_tty=has_tty)
        )
    except OSError as error:
        why = f"{path}: {error.strerror}"
        raise _refusal(folder, name, why, "Correct the command, or see whether it runs") from error


def _secrets(process: ProcessSpec, pid: int | None) -> dict[str, str]:
    """Return the variables that came as secrets, as the running process has them."""
    if not process.secret_names:
        return {}
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {key: value for key, _, value in pairs if key in process.secret_names}


def _refusal(folder: GroupFolder, name: str, why: str, advice: str) -> RuntimeFailure:
    where = f'container "{name}" of group {folder.group}' if name else f"group {folder.group}"
    return RuntimeFailure(
        f"embedded: cannot run a command in {where}: {why}. The group and its traffic stay as they "
        f"are. {advice}."
    )
