"""Our worker as the supervisor starts it: its sockets, its tables on disk, and a controller.

The controller is a thread that reads what the worker reports and throws it away, so that counting
and reporting cost what they cost in service.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from trafficmgr.core.model import Publish, Tcp
from trafficmgr.core.routing import Share, Table, Target, Zones, check, encode
from trafficmgr.core.traffic import Certificate, Front

BACKLOG = 4096
HOST = "shop.test"


def table(host: str, ports: list[int], generation: int = 1) -> Table:
    """Return the table of one endpoint with one revision; one target per port."""
    name = host.partition(".")[0]
    targets = tuple(
        Target(group=f"{name}-{n}", dial=Tcp(address="127.0.0.1", port=port))
        for n, port in enumerate(ports)
    )
    share = Share(revision="r1", weight_pct=100, targets=targets)
    return check(
        Table(
            endpoint=name,
            generation=generation,
            hosts=(host,),
            publish=Publish.proxy,
            ttl_s=5,
            shares=(share,),
        )
    )


def write_state(work: Path, tables: list[Table]) -> None:
    """Write what a worker loads at its start."""
    folder = work / "tables"
    folder.mkdir()
    for each in tables:
        (folder / f"{each.endpoint}.table").write_bytes(encode(each))
    certificate = Certificate(certificate=str(work / "tls.pem"), key=str(work / "tls.key"))
    zones = Zones(generation=1, zones=(), advertise=(), front=Front(certificates=(certificate,)))
    (folder / "zones").write_bytes(msgspec.msgpack.encode(zones))


@contextmanager
def listening(http: int, https: int) -> Iterator[tuple[list[int], str]]:
    """Bind a slot's sockets; yields the descriptors and how the worker is told of them."""
    with socket.socket() as plain, socket.socket() as tls:
        told = []
        for kind, sock, port in (("http", plain, http), ("https", tls, https)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            told.append({"kind": kind, "host": "127.0.0.1", "port": port, "fd": sock.fileno()})
        yield [plain.fileno(), tls.fileno()], json.dumps(told)


def command(work: Path, sockets: str) -> list[str]:
    return [
        *(sys.executable, "-m", "trafficmgr.dataplane.worker", "--slot", "0"),
        *("--start-id", "bench", "--state-dir", str(work), "--link", str(link_path(work))),
        *("--backlog", str(BACKLOG), "--sockets", sockets),
    ]


def link_path(work: Path) -> Path:
    return work / "link.sock"


@contextmanager
def controller(work: Path) -> Iterator[None]:
    """Listen on the link and read whatever a worker says."""
    path = link_path(work)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fsencode(path))
        sock.listen()
        thread = threading.Thread(target=_read_all, args=(sock,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join(5.0)
            path.unlink()


def _read_all(listener: socket.socket) -> None:
    """Take one worker after the other until the listener is shut down."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(1 << 20):
                    pass
