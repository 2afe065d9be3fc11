"""A supervisor as a real process with dummy children, and what a test wants to ask of it.

Run as a program, this file is that supervisor: its argument is a Spec as JSON, and the grace.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from trafficmgr.supervisor import Spec, loop, run

CHILDREN = Path(__file__).with_name("supervisor_children.py")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0

Found = TypeVar("Found")


def until(look: Callable[[], Found | None], what: str) -> Found:
    """Return what `look` finds as soon as it finds something true.

    Raises:
        AssertionError: It found nothing within `PATIENCE_S` seconds.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for: {what}"
        time.sleep(0.005)
    return found


def is_alive(pid: int) -> bool:
    """Whether the process runs, or is stopped; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Service:
    """One supervisor on `folder`/state. Leaving the context ends all that it started, by pid."""

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 1,
        dns: tuple[str, int] | None = ("127.0.0.1", 0),
        http: tuple[str, int] | None = ("127.0.0.1", 0),
        https: tuple[str, int] | None = None,
        worker_argv: tuple[str, ...] | None = None,
        state_dir: Path | None = None,
        grace_s: float = PATIENCE_S,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.state_dir = state_dir or folder / "state"
        self._log_path = folder / f"supervisor-{time.monotonic_ns()}.log"
        program = (sys.executable, "-S", "-E", str(CHILDREN))
        self._spec = {
            "state_dir": str(self.state_dir),
            "dns": [dns] if dns else [],
            "http": [http] if http else [],
            "https": [https] if https else [],
            "slots": slots,
            "grace_s": grace_s,
            "backlog": 128,
            "controller_argv": (*program, "controller", str(folder)),
            "worker_argv": worker_argv or (*program, "worker", str(folder)),
        }

    def __enter__(self) -> Self:
        """Start it; it may refuse."""
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(self._spec)],
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        return self

    def __exit__(self, *_: object) -> None:
        """End the supervisor, then by pid every child on our folder, told of or not."""
        sys.stdout.write(self.log())  # pytest shows it when the test failed
        self.process.kill()
        self.process.wait()
        for pid in self.children_alive():
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self.children_alive(), "the end of all children")

    # -- what it says --------------------------------------------------------------------------

    def log(self) -> str:
        """Return its stderr so far."""
        return self._log_path.read_text()

    def said(self, event: str) -> list[dict[str, str]]:
        """Return the pairs of each such event so far."""
        lines = [line for line in self.log().splitlines(keepends=True) if line.endswith("\n")]
        found = [line.split(None, 1)[1] for line in lines if line.startswith(event + " ")]
        return [dict(pair.split("=", 1) for pair in shlex.split(pairs)) for pairs in found]

    def await_said(self, event: str, times: int = 1) -> dict[str, str]:
        """Return the pairs of the n-th such event, waiting for it."""
        until(lambda: len(self.said(event)) >= times, f"{event} x {times}")
        return self.said(event)[times - 1]

    def worker_pid(self, *, start: int = 1) -> int:
        """Return the pid of the n-th worker started, waiting for it."""
        return int(self.await_said("worker_started", start)["pid"])

    def controller_pid(self, *, start: int = 1) -> int:
        """Return the pid of the n-th controller started, waiting for it."""
        return int(self.await_said("controller_started", start)["pid"])

    def refusal(self) -> str:
        """Return why it did not start, and make sure that it said only that."""
        assert self.process.wait(PATIENCE_S) == 1
        (line,) = self.log().splitlines()
        return line

    # -- who is there --------------------------------------------------------------------------

    def children_alive(self) -> list[int]:
        """Return whoever has our folder, unique to the test, among its arguments."""
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
        return [pid for pid in pids if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False

    def recorded(self) -> list[dict[str, Any]]:
        """Return children.json."""
        return list(json.loads((self.state_dir / "run" / "children.json").read_bytes()))

    # -- talking to it -------------------------------------------------------------------------

    def address(self, kind: str) -> tuple[str, int]:
        """Return its address for `dns`, `http` or `https`."""
        host, _, port = self.await_said("supervisor_started")[kind].rpartition(":")
        return host, int(port)

    def connect(self, kind: str = "http") -> socket.socket:
        """Open a TCP connection and ask; the answer is for `read_pid`."""
        sock = socket.create_connection(self.address(kind), timeout=PATIENCE_S)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return sock

    def ask(self) -> int:
        """Return the pid of the worker that answers one HTTP request."""
        with self.connect() as sock:
            return read_pid(sock)

    def told(self, is_: str = "", *, to: int | None = None) -> list[dict[str, Any]]:
        """Return what controllers were told so far: all, or of one kind, or to one of them."""
        path = self.folder / "told.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [line for line in lines if is_ in ("", line["is"]) and to in (None, line["to"])]

    def await_told(self, is_: str, *, times: int = 1, to: int | None = None) -> dict[str, Any]:
        """Return the n-th such line, waiting for it."""
        until(lambda: len(self.told(is_, to=to)) >= times, f"{is_} x {times}")
        return self.told(is_, to=to)[times - 1]

    def tell(self, line: bytes) -> None:
        """Let the controller say this line, once it is there."""
        pid = self.controller_pid(start=max(1, len(self.said("controller_started"))))
        self.await_told("caught_up", to=pid)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(line, str(self.folder / "commands.sock"))


def read_pid(sock: socket.socket) -> int:
    """Return the pid in the answer of a dummy worker."""
    data = b""
    while chunk := sock.recv(4096):
        data += chunk
    return int(data.rpartition(b"\r\n\r\n")[2])


def main() -> None:
    """Be the supervisor, as patient with its children as the test wants."""
    given = json.loads(sys.argv[1])
    loop.WORKERS_GRACE_S = loop.CONTROLLER_GRACE_S = given.pop("grace_s")
    given["state_dir"] = Path(given["state_dir"])
    for key in ("dns", "http", "https"):
        given[key] = tuple((host, port) for host, port in given[key])
    for key in ("controller_argv", "worker_argv"):
        given[key] = tuple(given[key])
    sys.exit(run(Spec(**given)))


if __name__ == "__main__":
    main()
