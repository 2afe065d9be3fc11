"""Our end of a command that runs inside a container: terminal, standard streams, its exit code.

One thread and one `select`: nothing here may block on one direction while the other waits, or a
`cat` of something large would stand still for ever. See admin/exec_stream.py for the messages.
"""

import json
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NoReturn

from trafficmgr.cli import websocket
from trafficmgr.cli.outcome import CliError, ExitCode

STDIN, STDOUT, STDERR = 0, 1, 2

CHUNK_BYTES = 32 * 1024
"""Read at once; a message of the service's limit (128 KiB) holds it."""

MOST_WAITING_BYTES = 256 * 1024
"""Standard input is not read while so much of it waits to be sent."""


class ExecClient:
    """Carries one command's streams over a connected WebSocket."""

    def __init__(self, connection: socket.socket, *, has_tty: bool) -> None:
        self._connection = connection
        self._has_tty = has_tty
        self._reader = websocket.Reader()
        self._unsent = bytearray()
        self._is_ended = False
        self._code: int | None = None
        is_terminal = os.isatty(STDIN)
        self._is_raw = has_tty and is_terminal
        self._reads_input = has_tty or not is_terminal

    def run(self, wanted: dict[str, Any]) -> int:
        """Run it to its end and return its exit code.

        Raises:
            CliError: It could not be run, or the connection broke off.
        """
        with ExitStack() as held:
            resized = held.enter_context(_resizes()) if self._has_tty else None
            self._say({**wanted, **(_size() if self._has_tty else {})})
            if not self._reads_input:
                self._send(websocket.BINARY, bytes([STDIN]))
            if self._is_raw:
                held.enter_context(raw_terminal(STDIN))
            self._connection.setblocking(False)
            while not self._is_ended:
                self._turn(resized)
        if self._code is None:
            raise CliError(
                "The connection to trafficmgr broke off before the command had ended; it was"
                " probably stopped or restarted. Look whether the command still runs."
            )
        return self._code

    def _turn(self, resized: int | None) -> None:
        """Wait until something can go on, and let all of that go on."""
        reads = [self._connection.fileno()]
        if self._reads_input and len(self._unsent) < MOST_WAITING_BYTES:
            reads.append(STDIN)
        if resized is not None:
            reads.append(resized)
        writes = [self._connection.fileno()] if self._unsent else []
        readable, writable, _ = select.select(reads, writes, [])
        if resized in readable and resized is not None:
            os.read(resized, CHUNK_BYTES)
            self._say(_size())
        if STDIN in readable:
            self._read_input()
        if writable:
            self._write()
        if self._connection.fileno() in readable:
            self._read()

    def _read_input(self) -> None:
        try:
            data = os.read(STDIN, CHUNK_BYTES)
        except OSError:  # a terminal that was hung up
            data = b""
        self._reads_input = bool(data)
        self._send(websocket.BINARY, bytes([STDIN]) + data)

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:  # what the service said last is still to be read
            self._unsent.clear()
            self._reads_input = False
            return
        del self._unsent[:sent]

    def _read(self) -> None:
        try:
            data = self._connection.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            for opcode, payload in self._reader.feed(data):
                self._hear(opcode, payload)
        except ValueError as error:
            raise CliError(
                f"trafficmgr answered with something that is no exec: {error}."
            ) from error
        self._is_ended = self._is_ended or not data

    def _hear(self, opcode: int, payload: bytes) -> None:
        match opcode:
            case websocket.BINARY:
                _put(STDERR if payload[:1] == bytes([STDERR]) else STDOUT, payload[1:])
            case websocket.TEXT:
                self._end(json.loads(payload))
            case websocket.PING:
                self._send(websocket.PONG, payload)
            case websocket.CLOSE:
                self._is_ended = True
            case _:
                pass

    def _end(self, last: dict[str, Any]) -> None:
        if "exit_code" not in last:
            raise CliError(str(last.get("error", "It failed for no reason.")), ExitCode.exec_failed)
        self._code, self._is_ended = int(last["exit_code"]), True

    def _say(self, data: dict[str, Any]) -> None:
        self._send(websocket.TEXT, json.dumps(data).encode())

    def _send(self, opcode: int, payload: bytes) -> None:
        self._unsent += websocket.frame(opcode, payload)


def _put(fd: int, data: bytes) -> None:
    """Write all of it, however slow its reader is."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


# -- the terminal ---------------------------------------------------------------------------------


def _size() -> dict[str, int]:
    """Return the size of our terminal; that of a DEC VT100 if we have none."""
    for fd in (STDOUT, STDIN, STDERR):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if rows and columns:
            return {"rows": rows, "columns": columns}
    return {"rows": 24, "columns": 80}


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Let every key reach the command; give the terminal back as it was, whatever happens.

    A signal that would end us at once ends us in order instead, or the shell that started us would
    be left with a terminal that shows nothing that one types.
    """
    before = termios.tcgetattr(fd)
    handlers = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


@contextmanager
def _resizes() -> Iterator[int]:
    """Yield a file descriptor that can be read when our terminal has another size."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    former_fd = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    former = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        yield woken
    finally:
        signal.signal(signal.SIGWINCH, former)
        signal.set_wakeup_fd(former_fd)
        os.close(woken)
        os.close(waker)
