"""An origin for uploads: drops chunked bodies and answers each when it is whole.

    python -m bench.http.upload_origin PORT

It parses nothing: a body of letters can't contain what ends it. nginx would answer before the
upload is read, which is another scenario.
"""

import asyncio
import socket
import sys
from typing import cast

import uvloop

END = b"\r\n0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"


class Upload(asyncio.Protocol):
    def __init__(self) -> None:
        self.last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own is none by its type

    def data_received(self, data: bytes) -> None:
        self.last = (self.last + data if len(data) < len(END) else data)[-len(END) :]
        if self.last == END:
            self.transport.write(ANSWER)


async def serve(port: int) -> None:
    sock = socket.create_server(("127.0.0.1", port), backlog=4096)
    server = await asyncio.get_running_loop().create_server(Upload, sock=sock, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
