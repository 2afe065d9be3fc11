"""Starting a container's shim, and learning how that went.

The shim's stdout is a pipe to us; its end says that the start is decided. After that the folder
tells: identity.json (it runs), exit.json (it could not, or is over already), or neither (the shim
itself failed). Everything here blocks for the 20 ms that it takes; use a thread.
"""

import errno
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.embedded import shim
from trafficmgr.runtimes.embedded.folders import ContainerFolder

START_DEADLINE_S = 10.0
"""The shim needs some 20 ms; this is for a machine that is swapping."""
_POLL_S = 0.01


def launch(group: str, container: ContainerFolder, secret_env: Mapping[str, str]) -> None:
    """Have the container run, whoever started it. Does nothing if it runs or has ended.

    Args:
        group: Its group.
        container: Its folder.
        secret_env: Variables that go to the shim through a pipe, and are written nowhere.

    Raises:
        RuntimeFailure: It could not be executed.
    """
    if not container.has_started():
        said = _start_shim(container, secret_env)
        if said == shim.BUSY:
            _wait_for_other(container)
    record = container.exit()
    if record is not None and record.error:
        raise _failure(group, container, f"{record.error}{_hint(container, record.errno)}")
    if record is None and container.identity() is None:
        raise _failure(group, container, f"its shim gave up: {_last_words(container)}")


def _start_shim(container: ContainerFolder, secret_env: Mapping[str, str]) -> bytes:
    """Start a shim in the folder; return what it said once it is decided (usually nothing)."""
    with (container.path / "shim.err").open("ab") as complaints:
        starter = subprocess.Popen(
            [sys.executable, "-I", "-S", shim.__file__, str(container.path)],
            stdin=subprocess.PIPE if secret_env else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            cwd="/",
            start_new_session=True,
        )
    with starter:  # it forks and exits at once; the shim is nobody's child
        _hand_over(starter, secret_env)
        assert starter.stdout is not None  # noqa: S101  we asked for it
        ready, _, _ = select.select([starter.stdout], [], [], START_DEADLINE_S)
        return os.read(starter.stdout.fileno(), 16) if ready else b""


def _hand_over(starter: subprocess.Popen[bytes], secret_env: Mapping[str, str]) -> None:
    """Write the secrets to the shim, which may be gone: another one has the folder."""
    if starter.stdin is None:
        return
    entries = (f"{name}={value}\0" for name, value in secret_env.items())
    with suppress(BrokenPipeError), starter.stdin as pipe:
        pipe.write(b"".join(os.fsencode(entry) for entry in entries))


def _wait_for_other(container: ContainerFolder) -> None:
    """Wait until a shim that someone else started has decided."""
    patience = time.monotonic() + START_DEADLINE_S
    while not container.has_started() and time.monotonic() < patience:
        time.sleep(_POLL_S)


def _failure(group: str, container: ContainerFolder, why: str) -> RuntimeFailure:
    process = container.process()
    path = process.path if process is not None else "its command"
    return RuntimeFailure(
        f'embedded: cannot start group {group}: container "{container.path.name}" could not '
        f"execute {path}: {why}. Nothing of the group runs, and traffic stays where it is. "
        "Correct the command or the image."
    )


def _hint(container: ContainerFolder, number: int) -> str:
    """Explain the error that puzzles everyone: the file is there, and yet it is not."""
    process = container.process()
    if number == errno.ENOENT and process is not None and os.path.exists(process.path):  # noqa: PTH110  strings all the way
        return " (the file is there: the interpreter or loader it names is not on this host)"
    if number == errno.EACCES and process is not None and process.uid is not None:
        return f" (for user {process.uid}: it needs to pass every folder on the way there)"
    if number == errno.ENOEXEC:
        return " (built for another machine, or a script without #!)"
    return ""


def _last_words(container: ContainerFolder) -> str:
    lines = (container.path / "shim.err").read_text(errors="replace").splitlines()
    return lines[-1] if lines else f"nothing was decided within {START_DEADLINE_S:g} s"
