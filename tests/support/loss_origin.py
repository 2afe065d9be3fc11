"""An application that writes down every request before it answers it, so that nothing is forgotten.

    python loss_origin.py LOG

It prints its port. Each request's method and X-Id go to LOG in one write(2) before the answer, so
that they outlive a SIGKILL. POSTs are answered with 201. On SIGTERM it finishes what is under way.
"""

import asyncio
import os
import signal
import sys


class Origin:
    """The application, and the connections that are in the middle of a request."""

    def __init__(self, log: int) -> None:
        self._log = log
        self._busy: set[asyncio.StreamWriter] = set()
        self._idle: set[asyncio.StreamWriter] = set()
        self.is_ending = False
        self.quiet = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while not self.is_ending:
                self._idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                self._busy.add(writer)
                writer.write(await self._answer(head, reader))
                await writer.drain()
                self._busy.discard(writer)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the proxy let go of it
        finally:
            self._idle.discard(writer)
            self._busy.discard(writer)
            writer.close()
            if self.is_ending and not self._busy:
                self.quiet.set()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        method = head.split(b" ", 1)[0]
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        os.write(self._log, method + b" " + fields[b"x-id"] + b"\n")
        status = b"201 Created" if method == b"POST" else b"200 OK"
        return b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status

    async def end(self) -> None:
        """Let go of idle connections and wait for the others."""
        self.is_ending = True
        for writer in tuple(self._idle):
            writer.close()
        if self._busy:
            await self.quiet.wait()


async def main(path: str) -> None:
    """Serve until SIGTERM."""
    origin = Origin(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    server = await asyncio.start_server(origin.converse, "127.0.0.1", 0, backlog=512)
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asked.wait()
    server.close()
    await origin.end()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
