"""Starting a command that runs beside a container's own process.

It is our child, in a session of its own, with the container's environment, working directory, user
and control group; so it dies with the container. Where it must be put into a control group first,
or needs a terminal, it begins as a shell that waits for one line on its stdin and then becomes it:
there is no moment in which it could fork outside. (`preexec_fn` would be the other way; beside
threads it is unsafe.)
"""

import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

from trafficmgr.core.noun import Noun
from trafficmgr.runtimes.embedded import shimgroup
from trafficmgr.runtimes.embedded.process import ProcessSpec

_SHELL = "/bin/sh"
_GATE = 'read -r _ && exec "$@"'
_TERMINAL_GATE = f'{_GATE} 0<>"$0" 1>&0 2>&0'
"""The first terminal that a session leader opens becomes its own (tty_ioctl(4), TIOCSCTTY)."""
_ROWS, _COLUMNS = 24, 80


class Command(Noun):
    """What to run: `argv` begins with the path of a file."""

    argv: tuple[str, ...]
    env: dict[str, str]
    has_tty: bool = False


class Spawned:
    """A command that was started: the process, our end of its stdin, and descriptor -> 1 or 2.

    With a terminal all three are the same descriptor. Whoever has this closes them and reaps it.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], stdin: int, outputs: Mapping[int, int]
    ) -> None:
        self.popen = popen
        self.stdin = stdin
        self.outputs = dict(outputs)

    def close(self) -> None:
        """Kill it and let go of it."""
        self.popen.kill()
        self.popen.wait()
        for fd in {self.stdin, *self.outputs}:
            os.close(fd)


def spawn(process: ProcessSpec, command: Command) -> Spawned:
    """Start a command like a container's own process. Takes some ms; use a thread.

    Raises:
        OSError: It could not be executed, or the container has just ended.
    """
    return _with_terminal(process, command) if command.has_tty else _with_pipes(process, command)


def resize(terminal: int, rows: int, columns: int) -> None:
    """Change a terminal's size; who runs in it gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _with_pipes(process: ProcessSpec, command: Command) -> Spawned:
    gate = (_SHELL, "-c", _GATE, _SHELL) if process.cgroups else ()
    popen = _popen(process, command, gate, subprocess.PIPE)
    fds = []
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        assert pipe is not None  # noqa: S101  we asked for it
        fds.append(os.dup(pipe.fileno()))
        pipe.close()
    spawned = Spawned(popen, fds[0], {fds[1]: 1, fds[2]: 2})
    if gate:
        _let_through(process, spawned, fds[0])
    return spawned


def _with_terminal(process: ProcessSpec, command: Command) -> Spawned:
    terminal, theirs = os.openpty()
    try:
        if process.uid is not None:
            os.fchown(theirs, process.uid, -1)
        resize(terminal, _ROWS, _COLUMNS)
        gate = (_SHELL, "-c", _TERMINAL_GATE, os.ttyname(theirs))
        popen = _popen(process, command, gate, theirs)
    except OSError:
        os.close(terminal)
        raise
    finally:
        os.close(theirs)
    spawned = Spawned(popen, terminal, {terminal: 1})
    assert popen.stdin is not None  # noqa: S101  we asked for it
    with popen.stdin as pipe:
        _let_through(process, spawned, pipe.fileno())
    return spawned


def _popen(
    process: ProcessSpec, command: Command, gate: Sequence[str], output: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*gate, *command.argv],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        bufsize=0,
        cwd=process.cwd,
        env=command.env,
        start_new_session=True,
        umask=0o022,
        user=process.uid,
        group=process.gid,
        extra_groups=[] if process.uid is not None else None,
    )


def _let_through(process: ProcessSpec, spawned: Spawned, pipe: int) -> None:
    """Put the shell where the command belongs, and let it become the command."""
    try:
        for folder in process.cgroups:
            shimgroup.write(f"{folder}/cgroup.procs", str(spawned.popen.pid).encode())
        os.write(pipe, b"\n")
    except OSError:
        spawned.close()
        raise
