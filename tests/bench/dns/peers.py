"""The servers under test. Each runs in a folder of its own and serves the same names."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

from bench.dns import gdnsd, ours
from bench.dns.zone import Host
from bench.http.peers import version_of
from bench.http.processes import (
    cpu_s,
    free_port,
    memory_bytes,
    running,
    wait_for_port,
    wait_until,
)

DNSLIB = ("dnslib", "dnslib-single")


@dataclass
class Peer:
    """A server that runs: its main processes and its port.

    `controller` is there with ours only.
    """

    name: str
    pids: list[int]
    port: int
    controller: ours.Controller | None = field(default=None, repr=False)

    def cpu_s(self) -> tuple[float, float]:
        """Return the seconds that its processes have run: (user, system)."""
        spent = [cpu_s(pid) for pid in self.pids]
        return sum(user for user, _ in spent), sum(system for _, system in spent)

    def memory_bytes(self) -> int:
        """Return its processes' memory, each page by its share (Pss)."""
        return sum(memory_bytes(pid)[1] for pid in self.pids)


@contextmanager
def ours_running(work: Path, hosts: Sequence[Host], *, slots: int = 1) -> Iterator[Peer]:
    """Run our worker, or several of them that share a port."""
    folder = Path(mkdtemp(prefix="ours-", dir=work))
    ours.write_state(folder, hosts)
    port = free_port()
    with ExitStack() as stack:
        controller = stack.enter_context(ours.controller(folder))
        told = stack.enter_context(ours.listening(port, slots))
        processes = [
            stack.enter_context(
                running(ours.command(folder, slot, sockets), folder, pass_fds=descriptors)
            )
            for slot, (descriptors, sockets) in enumerate(told)
        ]
        for process in processes:
            wait_for_port(port, process, folder)
        log = folder / f"{Path(sys.executable).name}.log"
        wait_until(
            lambda: log.read_text("utf-8").count("worker_started") == slots, f"{slots} workers"
        )
        yield Peer("trafficmgr", [process.pid for process in processes], port, controller)


@contextmanager
def _other_running(name: str, work: Path, hosts: Sequence[Host]) -> Iterator[Peer]:
    folder = Path(mkdtemp(prefix=f"{name}-", dir=work))
    port = free_port()
    if name == "gdnsd":
        command = gdnsd.write(folder, port, hosts)
    else:
        served = folder / "hosts.json"
        served.write_text(json.dumps({host.name: (host.v4, host.v6) for host in hosts}), "utf-8")
        module = ("-m", "bench.dns.dnslib_server")
        command = [sys.executable, *module, str(port), str(served), name.partition("-")[2]]
    with running(command, folder) as process:
        wait_for_port(port, process, folder)
        yield Peer(name, [process.pid], port)


def start(name: str, work: Path, hosts: Sequence[Host]) -> AbstractContextManager[Peer]:
    """Run a server that answers for hosts."""
    if name == "trafficmgr":
        return ours_running(work, hosts)
    return _other_running(name, work, hosts)


def known() -> dict[str, str]:
    """Return the servers that can run here, ours first, with their versions."""
    found = {"trafficmgr": f"this tree, uvloop {version('uvloop')}"}
    if shutil.which("gdnsd"):
        found["gdnsd"] = version_of("gdnsd", "-h")
    found["dnslib"] = f"{version('dnslib')}, as it comes: a thread per query"
    found["dnslib-single"] = "the same in one thread"
    return found
