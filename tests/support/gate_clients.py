"""Who meets an endpoint with gates and hooks: its clients, and whom its checks and hooks ask."""

import contextlib
import http.client
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from typing import Any, NamedTuple, Self

from support.client_support import Load, boottime
from support.gate_support import POLL_S, Site
from support.service_support import DEADLINE_S, wait_for

Data = dict[str, Any]

# -- clients --------------------------------------------------------------------------------------


class Visitor(Load):
    """A client of the proxy that counts which version answered with which status."""

    def __init__(self, site: Site, pause_s: float) -> None:
        super().__init__(site.house.ports["http"], pause_s, site.host)
        self.seen: Counter[tuple[str, int]] = Counter()
        self.answered: list[tuple[float, str]] = []
        """When which version had answered, on CLOCK_BOOTTIME."""

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/", headers={"Host": self._host})
        response = connection.getresponse()
        response.read()
        version = response.headers.get("X-Version", "")
        self.seen[version, response.status] += 1
        self.answered.append((boottime(), version))


class Crowd:
    """Some visitors at once, each on a connection of its own: 300 requests a second or so."""

    def __init__(self, site: Site, *, size: int = 4, pause_s: float = 0.01) -> None:
        self._visitors = [Visitor(site, pause_s) for _ in range(size)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begin."""
        for visitor in self._visitors:
            self._stack.enter_context(visitor)
        return self

    def __exit__(self, *_: object) -> None:
        """End and wait for the last answers."""
        self._stack.close()

    @property
    def seen(self) -> Counter[tuple[str, int]]:
        """How often which version answered with which status."""
        found: Counter[tuple[str, int]] = Counter()
        for visitor in self._visitors:
            found.update(dict(visitor.seen))
        return found

    def of(self, version: str, *, by: float = inf) -> int:
        """Return how many requests a version had answered by a moment on CLOCK_BOOTTIME."""
        answered = (answer for visitor in self._visitors for answer in list(visitor.answered))
        return sum(at <= by and one == version for at, one in answered)

    @property
    def trouble(self) -> list[str]:
        """What went wrong beside answers of 500, among it connections that were cut."""
        cut = [f"{v.cut} connections were cut" for v in self._visitors if v.cut]
        return [*cut, *(failure for visitor in self._visitors for failure in visitor.failed)]

    def wait_for_more(self, requests: int) -> None:
        """Wait until so many more requests were answered."""
        goal = sum(self.seen.values()) + requests
        wait_for(f"{requests} more requests", lambda: sum(self.seen.values()) >= goal)


# -- whom checks and hooks ask --------------------------------------------------------------------


class Call(NamedTuple):
    """What a desk was asked."""

    method: str
    path: str
    body: Data


class Desk:
    """A server in threads: it keeps what it is asked, and answers what it is told to.

    It can go away and come back, and it can let everybody wait.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.status = 200
        self.answer: Data = {}
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> Self:
        """Open."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everybody go, and close."""
        self._goes_on.set()
        self.close()

    @property
    def url(self) -> str:
        """Where it is, also while it is closed."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Be there, where it was before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True).start()

    def close(self) -> None:
        """Be away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def hold(self) -> None:
        """Answer nobody until told to."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """Answer everybody who waits."""
        self._goes_on.set()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                desk.calls.append(Call(self.command, self.path, body))
                desk._goes_on.wait(DEADLINE_S)
                with contextlib.suppress(OSError):  # who asked may have been killed
                    self._answer(json.dumps(desk.answer).encode())

            do_POST = do_GET  # noqa: N815  http.server calls it so

            def _answer(self, body: bytes) -> None:
                self.send_response(desk.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
