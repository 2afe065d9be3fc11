"""A command as a runtime would run it inside a container, but beside it: a real process."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from trafficmgr.runtimes.contract import ExecSession, RuntimeFailure

CHUNK_BYTES = 65536


class LocalExec(ExecSession):
    """Runs a command with pipes, or on a terminal of its own."""

    def __init__(self, process: Process, terminal: int | None) -> None:
        self.process = process
        self.terminal = terminal
        self.is_closed = False

    @classmethod
    async def begun(cls, command: tuple[str, ...], *, has_tty: bool) -> Self:
        """Start it."""
        try:
            if not has_tty:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
                )
                return cls(process, None)
            ours, theirs = pty.openpty()
            process = await asyncio.create_subprocess_exec(
                *("setsid", "--ctty", *command), stdin=theirs, stdout=theirs, stderr=theirs
            )
            os.close(theirs)
            return cls(process, ours)
        except FileNotFoundError as error:
            raise RuntimeFailure(f"There is no program {command[0]!r}.") from error

    async def send(self, data: bytes) -> None:
        """Write to its standard input."""
        if self.terminal is not None:
            await asyncio.to_thread(os.write, self.terminal, data)
            return
        assert self.process.stdin is not None
        if not data:
            self.process.stdin.close()
            return
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        if self.terminal is not None:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what it writes."""
        if self.terminal is not None:
            with suppress(OSError):  # the last process has closed its end
                while data := await asyncio.to_thread(os.read, self.terminal, CHUNK_BYTES):
                    yield 1, data
            return
        written: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as reading:
            for number, stream in ((1, self.process.stdout), (2, self.process.stderr)):
                assert stream is not None
                reading.create_task(_copied(number, stream, written))
            for _ in range(2):
                while (item := await written.get())[1]:
                    yield item

    async def exit_code(self) -> int:
        """Wait for its end."""
        code = await self.process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        """End it, and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream._transport.close()  # type: ignore[attr-defined]  # wait() waits for pipes
        await self.process.wait()
        if self.terminal is not None and not self.is_closed:
            os.close(self.terminal)
        self.is_closed = True


async def _copied(
    number: int, stream: asyncio.StreamReader, written: asyncio.Queue[tuple[int, bytes]]
) -> None:
    while data := await stream.read(CHUNK_BYTES):
        await written.put((number, data))
    await written.put((number, b""))
