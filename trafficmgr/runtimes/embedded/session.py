"""A command that runs inside a container (`spawning.py`), as seen from the event loop.

Its output waits in a short queue; if nobody takes it, the command waits, too, as with any pipe.
Some of its processes may outlive it with its output open, so its end is its own: whatever is in the
pipes then is the last of it.
"""

import asyncio
import errno
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from trafficmgr.runtimes.contract import ExecSession
from trafficmgr.runtimes.embedded.process import ProcessSpec
from trafficmgr.runtimes.embedded.spawning import Command, Spawned, resize, spawn

_CHUNK_BYTES = 64 * 1024
_QUEUED_CHUNKS = 32
_KILL_PATIENCE_S = 5.0
_END_OF_FILE = b"\x04"
"""What a terminal takes for it, Ctrl-D (termios(3), VEOF)."""


class Session(ExecSession):
    """A running command. `open_session` makes it; it belongs to one event loop."""

    def __init__(self, spawned: Spawned) -> None:
        """Listen to the command, which is this session's from now on."""
        self._popen = spawned.popen
        self._stdin: int | None = spawned.stdin
        self._outputs = spawned.outputs
        self._fds = {spawned.stdin, *spawned.outputs}
        self._is_terminal = spawned.stdin in spawned.outputs
        self._queue: deque[tuple[int, bytes]] = deque()
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._loop.add_reader(self._pidfd, self._end)
        for fd in self._fds:
            os.set_blocking(fd, False)
        self._listen()

    @property
    def has_ended(self) -> bool:
        """Whether the command is over."""
        return self._ended.is_set()

    async def send(self, data: bytes) -> None:
        """Write to its standard input; b"" closes it, or is the end of file of a terminal."""
        if not data and not self._is_terminal:
            self._close_stdin()
        data = data or _END_OF_FILE
        while data and self._stdin is not None:
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                await self._until_writable(self._stdin)
            except OSError:
                return  # it listens no more, which is its own affair

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal; without one nothing happens."""
        if self._is_terminal and self._stdin is not None:
            resize(self._stdin, rows, columns)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (1 or 2, bytes) as it writes. Ends with it."""
        while True:
            while self._queue:
                yield self._queue.popleft()
                self._listen()
            if self._ended.is_set():
                return
            self._news.clear()
            await self._news.wait()

    async def exit_code(self) -> int:
        """Wait for its end and return its exit code, 128 + N after signal N."""
        await self._ended.wait()
        code: int | None = self._popen.returncode
        if code is None:  # it outlived SIGKILL, and was given up
            return 128 + signal.SIGKILL
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        """End it with all of its session, if it still runs."""
        if not self._ended.is_set():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)  # not reaped yet, so it is the one
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _KILL_PATIENCE_S)
        self._end()

    # -- the event loop calls these ---------------------------------------------------------------

    def _listen(self) -> None:
        """Read its output as long as there is room for it."""
        has_room = len(self._queue) < _QUEUED_CHUNKS
        for fd in self._outputs:
            if has_room:
                self._loop.add_reader(fd, self._take, fd)
            else:
                self._loop.remove_reader(fd)

    def _take(self, fd: int) -> bool:
        """Queue a chunk; whether there may be more."""
        data = _read(fd)
        if data is None:
            return False
        if not data:
            self._loop.remove_reader(fd)
            del self._outputs[fd]
            return False
        self._queue.append((self._outputs[fd], data))
        self._listen()
        self._news.set()
        return True

    def _end(self) -> None:
        """Take in its end and the last of its output, and let go of all descriptors. Once."""
        if self._ended.is_set():
            return
        with suppress(subprocess.TimeoutExpired):  # it is there, unless it outlived SIGKILL
            self._popen.wait(0)
        for fd in tuple(self._outputs):
            for _ in range(_QUEUED_CHUNKS):  # who else has it open may never end
                if not self._take(fd):
                    break
        self._outputs.clear()
        self._stdin = None
        for fd in (self._pidfd, *self._fds):
            self._let_go(fd)
        self._fds.clear()
        self._ended.set()
        self._news.set()

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            self._fds.discard(self._stdin)
            self._let_go(self._stdin)
            self._stdin = None

    def _let_go(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        os.close(fd)

    async def _until_writable(self, fd: int) -> None:
        """Wait until more can be written, or it has ended."""
        can_write = asyncio.Event()
        self._loop.add_writer(fd, can_write.set)
        waits = [self._loop.create_task(one.wait()) for one in (can_write, self._ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            if fd in self._fds:
                self._loop.remove_writer(fd)


def _read(fd: int) -> bytes | None:
    """Return what is there: None is nothing yet, b"" its end."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # nobody has the terminal any more
            return b""
        raise


async def open_session(process: ProcessSpec, command: Command) -> Session:
    """Start a command like a container's own process.

    Raises:
        OSError: It could not be executed, or the container has just ended.
    """
    starting = asyncio.get_running_loop().run_in_executor(None, spawn, process, command)
    try:
        return Session(await asyncio.shield(starting))
    except asyncio.CancelledError:
        await asyncio.wait([starting])  # some ms; nobody else would know of it
        if starting.exception() is None:
            starting.result().close()
        raise
