"""Our worker as the supervisor starts it: its sockets, its tables on disk, and a controller.

The controller is a thread that reads and decodes whatever workers report, so that counting and
reporting cost what they cost in service.
"""

import json
import os
import selectors
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
from bench.dns import zone
from bench.dns.zone import Host

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, Zone, Zones, check, encode
from trafficmgr.wire import frames

BACKLOG = 4096
_PORT = 8080


def table(host: Host, generation: int = 1, candidate_pct: int = zone.CANDIDATE_PCT) -> Table:
    """Return the table of a name: stable's groups, and the candidate's."""
    endpoint = host.name.partition(".")[0]
    families = (host.v4, host.v6) if host.v6 else (host.v4,)
    stable = [address for family in families for address in family[:-1]]
    candidate = [family[-1] for family in families]
    shares = tuple(
        Share(
            revision=revision,
            weight_pct=weight_pct,
            targets=tuple(
                Target(group=f"{endpoint}-{address}", dial=Tcp(address=address, port=_PORT))
                for address in addresses
            ),
        )
        for revision, weight_pct, addresses in (
            ("stable", 100 - candidate_pct, stable),
            ("candidate", candidate_pct, candidate),
        )
    )
    return check(
        Table(
            endpoint=endpoint,
            generation=generation,
            hosts=(host.name,),
            publish=Publish.groups,
            ttl_s=zone.TTL_S,
            shares=shares,
        )
    )


def write_state(work: Path, hosts: Sequence[Host]) -> None:
    """Write what a worker loads at its start."""
    folder = work / "tables"
    folder.mkdir()
    for host in hosts:
        made = table(host)
        (folder / f"{made.endpoint}.table").write_bytes(encode(made))
    own = Zone(name=zone.APEX, ns=(zone.SERVER,), negative_ttl_s=zone.NEGATIVE_TTL_S)
    zones = Zones(generation=1, zones=(own,), advertise=(zone.SERVER_ADDRESS,))
    (folder / "zones").write_bytes(msgspec.msgpack.encode(zones))


@contextmanager
def listening(port: int, slots: int) -> Iterator[list[tuple[list[int], str]]]:
    """Bind the sockets of all slots; yields each slot's descriptors and how its worker is told."""
    with ExitStack() as stack:
        told = []
        for _ in range(slots):
            udp = stack.enter_context(_bound(port, socket.SOCK_DGRAM))
            tcp = stack.enter_context(_bound(port, socket.SOCK_STREAM))
            kinds = {"dns-udp": udp.fileno(), "dns-tcp": tcp.fileno()}
            sockets = [
                {"kind": kind, "host": "127.0.0.1", "port": port, "fd": fd}
                for kind, fd in kinds.items()
            ]
            told.append((list(kinds.values()), json.dumps(sockets)))
        yield told


def _bound(port: int, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    if kind is socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def command(work: Path, slot: int, sockets: str) -> list[str]:
    return [
        *(sys.executable, "-m", "trafficmgr.dataplane.worker", "--slot", str(slot)),
        *("--start-id", f"bench-{slot}", "--state-dir", str(work)),
        *("--link", str(work / "link.sock"), "--backlog", str(BACKLOG), "--sockets", sockets),
    ]


class Controller:
    """Listens on the link, reads all workers, and sends them tables.

    `applied` counts acknowledgements of tables of a generation above 1.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.applied = 0
        self._listener = listener
        self._workers: dict[socket.socket, frames.Decoder] = {}
        self._is_over = False
        self._thread = threading.Thread(target=self._read_all, daemon=True)
        self._thread.start()

    def send(self, made: Table) -> None:
        """Send a table to every worker."""
        data = frames.encode(frames.TableSent(table=made))
        for worker in tuple(self._workers):
            worker.sendall(data)

    def close(self) -> None:
        """End the thread and the connections."""
        self._is_over = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(5.0)

    def _read_all(self) -> None:
        with selectors.DefaultSelector() as ready, ExitStack() as stack:
            ready.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if self._is_over:
                        return
                    if key.fileobj is self._listener:
                        worker = stack.enter_context(self._listener.accept()[0])
                        self._workers[worker] = frames.Decoder()
                        ready.register(worker, selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket) and not self._read(key.fileobj):
                        ready.unregister(key.fileobj)
                        del self._workers[key.fileobj]

    def _read(self, worker: socket.socket) -> bool:
        """Take what a worker says; False if it is gone."""
        data = b""
        with suppress(ConnectionError):
            data = worker.recv(1 << 20)
        for frame in self._workers[worker].feed(data):
            if isinstance(frame, frames.Applied) and frame.generation > 1:
                self.applied += 1
        return bool(data)


@contextmanager
def controller(work: Path) -> Iterator[Controller]:
    """Run the controller of the workers whose state is in a folder."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(work / "link.sock"))
        listener.listen()
        running = Controller(listener)
        try:
            yield running
        finally:
            running.close()
