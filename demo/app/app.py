"""The web app that the demo rolls out: a small HTTP/1.1 server that says which version it is.

It runs from its image with nothing but the standard library, as a container of process mode does:
the working directory is the image's, `HOST` and `PORT` say where to listen. The image's file
`version` holds "v2" or so; an image with a file `broken` never becomes healthy, and one with a file
`flawed` is healthy as long as nobody asks for the page that the file names.

    GET /healthz   200 "ok", or 503 for ever if broken
    GET anything   200 with a small JSON body, or 500 on the flawed page; X-Version and X-Group

On SIGTERM it stops accepting, finishes what is under way and exits with 0.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path

LINGER_S = 5.0
"""How long requests under way may take after SIGTERM; below the default stop grace of 10 s."""


class App:
    """One running copy, and the connections it holds (each with whether it answers right now)."""

    def __init__(self, *, group: str, version: str, broken: bool, flawed: str) -> None:
        self._broken = broken
        self._flawed = flawed.encode()
        body = json.dumps({"app": "shop", "version": version, "group": group}).encode()
        labels = f"X-Version: {version}\r\nX-Group: {group}\r\n"
        self._page = _answer("200 OK", body, labels, "application/json")
        self._error = _answer("500 Internal Server Error", b"a bug\n", labels, "text/plain")
        self._busy: set[asyncio.StreamWriter] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self._stopping = False
        self._quiet = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until either side has had enough."""
        try:
            while not self._stopping:
                self._idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                self._busy.add(writer)
                await reader.readexactly(_body_length(head))
                writer.write(self.answer_to(head))
                await writer.drain()
                self._busy.discard(writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            pass  # the client went away, or speaks no HTTP: nobody is left to tell
        finally:
            self._idle.discard(writer)
            self._busy.discard(writer)
            writer.close()
            if self._stopping and not self._busy:
                self._quiet.set()

    def answer_to(self, head: bytes) -> bytes:
        """Return the whole response to a request head."""
        path = head.split(b" ", 2)[1]
        if path == b"/healthz":
            if self._broken:
                return _answer("503 Service Unavailable", b"broken\n", "", "text/plain")
            return _answer("200 OK", b"ok\n", "", "text/plain")
        return self._error if path == self._flawed else self._page

    async def finish(self) -> None:
        """Let go of idle connections; wait until the others have their answer."""
        self._stopping = True
        for writer in tuple(self._idle):
            writer.close()
        if self._busy:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), LINGER_S)


def _answer(status: str, body: bytes, labels: str, kind: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{labels}"
    return head.encode() + b"\r\n" + body


def _body_length(head: bytes) -> int:
    """Return the Content-Length of a request; the app takes no chunked bodies."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def own_address() -> str:
    """Return the group's address: where we listen, or what our own name stands for in there."""
    host = os.environ["HOST"]
    return host if host != "0.0.0.0" else socket.gethostbyname(socket.gethostname())  # noqa: S104  compared


def _text(name: str) -> str:
    """Return what a file of the image holds; "" if there is no such file."""
    path = Path(name)
    return path.read_text("utf-8").strip() if path.exists() else ""


def from_image() -> App:
    """Return the app as its image (the working directory) and its environment describe it."""
    return App(
        group=own_address(),
        version=_text("version"),
        broken=Path("broken").exists() or os.environ.get("BROKEN") == "1",
        flawed=_text("flawed"),
    )


async def main(app: App) -> None:
    """Serve until SIGTERM."""
    host, port = os.environ["HOST"], int(os.environ["PORT"])
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    server = await asyncio.start_server(app.converse, host, port, backlog=512)
    print("listening on", *server.sockets[0].getsockname(), flush=True)
    await asked_to_stop.wait()
    server.close()
    await app.finish()


if __name__ == "__main__":
    asyncio.run(main(from_image()))
