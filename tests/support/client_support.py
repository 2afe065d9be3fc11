"""Clients of an installation that ask all the time, each in a thread of its own.

`Load` goes through the proxy, `DirectLoad` asks DNS and goes to the groups itself. Both count what
they were answered, and keep everything that failed, as sentences.
"""

import contextlib
import http.client
import threading
import time
from typing import Self

import dns.exception
import dns.message
import dns.query
import dns.rcode

from support.service_support import DEADLINE_S, HOST, wait_for

PAUSE_S = 0.04
"""Between two requests of a client that only looks whether all is well."""


def boottime() -> float:
    """Return the time on the clock that the journal goes by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClient:
    """A client that asks until its context ends; how it asks is its subclass's to say.

    Attributes:
        answered_at: When each answer was there, on CLOCK_BOOTTIME.
        failed: What went wrong, also with the client itself.
    """

    def __init__(self, pause_s: float) -> None:
        self.answered_at: list[float] = []
        self.failed: list[str] = []
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End and wait for the last answer."""
        self._is_over.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"{self!r} waits for an answer since {DEADLINE_S:g} s"

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return len(self.answered_at)

    def wait_for_more(self, requests: int) -> None:
        """Wait until so many more requests were answered."""
        goal = self.requests + requests
        wait_for(f"{requests} more requests", lambda: self.requests >= goal)

    def _live(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001  in a thread nobody else would hear of it
            self.failed.append(f"the client itself: {error!r}")

    def _run(self) -> None:
        raise NotImplementedError

    def _note_answer(self) -> None:
        self.answered_at.append(boottime())


class Load(SteadyClient):
    """A client of the proxy, on one keep-alive connection.

    It sends a request again, on a new connection, only if the old one ended before any byte of
    the answer; that is counted as cut.
    """

    def __init__(self, port: int, pause_s: float = 0.002, host: str = HOST) -> None:
        super().__init__(pause_s)
        self.cut = 0
        self._port = port
        self._host = host
        self._connection = self._connect()

    @property
    def own_port(self) -> int:
        """The port of its end of the connection; another one only after it was cut."""
        wait_for("the load to be connected", lambda: self._connection.sock)
        port: int = self._connection.sock.getsockname()[1]
        return port

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self._ask(self._connection)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.cut += 1
                self._connection = self._connect()
                self._again(self._connection)
            except OSError as error:
                self.failed.append(repr(error))
                self._connection = self._connect()
            self._note_answer()
            time.sleep(self._pause_s)
        self._connection.close()

    def _again(self, connection: http.client.HTTPConnection) -> None:
        try:
            self._ask(connection)
        except OSError as error:
            self.failed.append(f"again: {error!r}")

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/", headers={"Host": self._host})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            self.failed.append(f"{response.status}: {body!r}")


class DirectLoad(SteadyClient):
    """A client that asks DNS, keeps the answer for its TTL, and goes to the groups itself.

    The TTL counts from when it asked. An attempt that was not connected before the end of it, on a
    busy machine, is the client's own fault and not counted; what was connected in time must do.

    Attributes:
        unanswered_at: When each query was sent that nobody answered, on CLOCK_BOOTTIME.
    """

    def __init__(self, dns_port: int) -> None:
        super().__init__(PAUSE_S)
        self.unanswered_at: list[float] = []
        self._dns_port = dns_port

    def _run(self) -> None:
        while not self._is_over.is_set():
            asked_at, sent_at = time.monotonic(), boottime()
            try:
                address, ttl_s = self._look_up()
            except dns.exception.Timeout:
                self.unanswered_at.append(sent_at)
                continue
            except (OSError, dns.exception.DNSException) as error:
                self.failed.append(f"DNS: {error!r}")
                continue
            while time.monotonic() < asked_at + ttl_s and not self._is_over.is_set():
                self._ask(address, asked_at, ttl_s)
                time.sleep(self._pause_s)

    def _look_up(self) -> tuple[str, float]:
        query = dns.message.make_query(HOST, "A")
        answer = dns.query.udp(query, "127.0.0.1", port=self._dns_port, timeout=20)
        if not answer.answer:
            raise OSError(f"it answered {dns.rcode.to_text(answer.rcode())}")
        (rrset,) = answer.answer
        return rrset[0].to_text(), rrset.ttl

    def _ask(self, address: str, asked_at: float, ttl_s: float) -> None:
        connection = http.client.HTTPConnection(address, 8080, timeout=30)
        is_in_time = True
        with contextlib.closing(connection):
            try:
                try:
                    connection.connect()
                finally:
                    is_in_time = time.monotonic() < asked_at + ttl_s
                connection.request("GET", "/", headers={"Host": HOST})
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException) as error:
                if is_in_time:
                    age_s = time.monotonic() - asked_at
                    self.failed.append(f"{address}, known for {age_s:.3f} s: {error!r}")
            else:
                self._note_answer()
                if status != 200:
                    self.failed.append(f"{address} answered {status}")
