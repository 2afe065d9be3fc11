"""What the three programs share: a small web server that ends in order, and a way to ask another.

The containers of a group listen at $HOST, each on its own $PORT, and meet at $LOCALHOST, whatever
runs them. On SIGTERM a server stops accepting, gives every answer that is under way, and ends.
"""

import contextlib
import http.client
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

LINGER_S = 5.0
"""How long answers under way may take after SIGTERM; below the stop grace of 10 s."""

LINES_KEPT = 1000
"""How many lines wait for the logging service; older ones are dropped, work never waits."""


class Request(NamedTuple):
    """What somebody asks."""

    method: str
    path: str
    body: bytes


class Answer(NamedTuple):
    """What is said to it."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"


def text(body: str, status: int = 200) -> Answer:
    """Answer with a line of text."""
    return Answer(status, f"{body}\n".encode())


def json_of(value: object, status: int = 200) -> Answer:
    """Answer with JSON."""
    return Answer(status, json.dumps(value).encode() + b"\n", "application/json")


def version() -> str:
    """Return which version this image is: the file `version` in its working directory."""
    return Path("version").read_text("utf-8").strip()


# -- serving --------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, and knows how many answers are under way."""

    request_queue_size = 128
    daemon_threads = True  # an idle connection must not hold up our end

    def __init__(self, place: tuple[str, int], answer: Callable[[Request], Answer]) -> None:
        super().__init__(place, _Handler)
        self.answer = answer
        self.label = version()
        self.under_way = 0
        self.changed = threading.Condition()

    def enter(self, step: int) -> None:
        """Count an answer that begins (1) or has been given (-1)."""
        with self.changed:
            self.under_way += step
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body leave together
    disable_nagle_algorithm = True

    def respond(self) -> None:
        self.server.enter(1)
        try:
            length = int(self.headers.get("Content-Length", "0"))
            request = Request(self.command, self.path, self.rfile.read(length))
            self._write(self.server.answer(request))
        finally:
            self.server.enter(-1)

    do_GET = respond  # noqa: N815  the base class's name
    do_POST = respond  # noqa: N815  likewise

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Version", self.server.label)
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:  # noqa: ANN401  the base class's signature
        """Say nothing for each request."""


def serve(answer: Callable[[Request], Answer], *, on_stop: Callable[[], None]) -> None:
    """Serve at $HOST:$PORT until SIGTERM.

    Args:
        answer: Says what is answered; called in many threads.
        on_stop: Called when SIGTERM has come and nobody new is let in.
    """
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    with Server((os.environ["HOST"], int(os.environ["PORT"])), answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        print("listening on", *server.server_address, flush=True)
        asked_to_stop.wait()
        server.shutdown()
        thread.join()
        on_stop()
        with server.changed:
            server.changed.wait_for(lambda: not server.under_way, LINGER_S)


# -- asking ---------------------------------------------------------------------------------------


class NoAnswerError(Exception):
    """Another member of the group did not answer, or not with what was wanted."""


def ask(port: int, method: str, path: str, body: bytes = b"", *, timeout_s: float = 5.0) -> bytes:
    """Ask another member of the group, and return what it answers with 200.

    Raises:
        NoAnswerError: It answered something else, or nothing.
    """
    connection = http.client.HTTPConnection(os.environ["LOCALHOST"], port, timeout=timeout_s)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(f"port {port}: {error}") from error
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        raise NoAnswerError(f"port {port}: {response.status} {answer.decode(errors='replace')}")
    return answer


class Notebook:
    """Writes lines to our own output, and to the logging service as soon as it takes them."""

    def __init__(self, name: str, port: int) -> None:
        self._label = f"{name} {version()}"
        self._port = port
        self._lines: queue.Queue[str] = queue.Queue(LINES_KEPT)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def write(self, line: str) -> None:
        """Write a line; never waits, never fails."""
        print(line, flush=True)
        try:
            self._lines.put_nowait(f"{self._label}: {line}")
        except queue.Full:
            print("the logging service is behind; a line is only here", file=sys.stderr)

    def close(self) -> None:
        """Send what is left, if it is taken, and end."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        waiting: list[str] = []
        while not (self._is_over.is_set() and self._lines.empty()):
            if not waiting:
                waiting = self._next_lines()
            if waiting and self._sent(waiting):
                waiting = []
            elif waiting and self._is_over.wait(0.2):
                break  # it went before us

    def _next_lines(self) -> list[str]:
        lines: list[str] = []
        with contextlib.suppress(queue.Empty):
            lines.append(self._lines.get(timeout=0.1))
            while True:
                lines.append(self._lines.get_nowait())
        return lines

    def _sent(self, lines: list[str]) -> bool:
        try:
            ask(self._port, "POST", "/api/logs", "".join(f"{line}\n" for line in lines).encode())
        except NoAnswerError:
            return False
        return True
