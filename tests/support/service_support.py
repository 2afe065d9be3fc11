"""A whole installation for tests: a registry, `trafficmgr run`, and what can be asked of it.

Everything is real: processes, sockets, images, signals. Each installation has a folder, ports and
an address pool of its own; whatever it started is ended by pid when its context ends.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import dns.message
import dns.query

from demo.builder import push
from demo.settings import free_ports
from demo.versions import image_of
from trafficmgr.runtimes.embedded.process import MARK

DEADLINE_S = 60.0
ARGV = (sys.executable, "-m", "trafficmgr")
HOST = "shop.apps.test"
REPOSITORY = "demo/web"
_pools = count(os.getpid() * 37 % 1600)
"""Of 127.100.0.0 to 127.199.255.255, 16 of 256; test runs side by side seldom meet."""

CONFIG = """\
state_dir: ./state
listen: {{dns: ["127.0.0.1:{dns}"], http: ["127.0.0.1:{http}"]}}
address_pool: 127.{pool}.0/20
workers: 2
zones: [{{name: apps.test, ns: [ns1.apps.test]}}]
endpoints:
  shop:
    hosts: [shop.apps.test]
    publish: {publish}
    ttl: 1s
    ttl_grace: 100ms
    group:
      replicas: 2
      containers:
        - name: web
          image: {registry}/{repository}:stable
          ports: [8080]
          readiness: {{http: {{path: /healthz, port: 8080}}, every: 100ms, rise: 1, fall: 3}}
    update: {{policy: digest, every: 1s}}
    rollout: {{steps: [{{weight: 50, hold: {hold}}}], min_ready: 0s, deadline: {deadline},
      watch: 0s, keep_previous: 0s}}
    drain: {{http: 5s, websocket: 5s}}
"""


def wait_for(
    what: str, is_so: Callable[[], Any], *, within_s: float = DEADLINE_S, every_s: float = 0.02
) -> Any:
    """Look again and again until it is so; fail with what was waited for."""
    deadline = time.monotonic() + within_s
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(every_s)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in {"Z", "X"}


@dataclass
class Installation:
    """One state_dir and what runs on it."""

    folder: Path
    registry: str
    publish: str = "proxy"
    deadline: str = "10s"
    hold: str = "1s"
    ports: dict[str, int] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        """Write the config."""
        self.ports = dict(zip(("dns", "http"), free_ports(2), strict=True))
        number = next(_pools) % 1600
        self.pool = f"{100 + number // 16}.{number % 16 * 16}"
        self.write_config()

    @property
    def config(self) -> Path:
        """The path of the config."""
        return self.folder / "trafficmgr.yaml"

    @property
    def state_dir(self) -> Path:
        """Where it keeps its state."""
        return self.folder / "state"

    @property
    def mark(self) -> bytes:
        """What all processes of its groups have in their environment, and no others."""
        path = self.state_dir / "instance"
        instance = path.read_text() if path.exists() else "not started yet"
        return f"{MARK}={instance}/".encode()

    def write_config(self, registry: str = "") -> None:
        """Write the config, perhaps for another registry."""
        self.config.write_text(
            CONFIG.format(
                **self.ports,
                pool=self.pool,
                publish=self.publish,
                registry=registry or self.registry,
                repository=REPOSITORY,
                deadline=self.deadline,
                hold=self.hold,
            )
        )

    # -- its life ---------------------------------------------------------------------------------

    def push(self, version: str) -> str:
        """Push a version of the demo's app under the watched tag; return its digest."""
        url = f"http://{self.registry}"
        return asyncio.run(push(url, REPOSITORY, "stable", image_of(version)))

    def start(self) -> Self:
        """Start `trafficmgr run` and wait until its API answers."""
        with (self.folder / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*ARGV, "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(f"the API to answer:\n{self.log()}", self.status)
        return self

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a verb."""
        return subprocess.run(
            [*ARGV, *arguments, "-c", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def stop(self, *, groups: bool) -> None:
        """Stop it by its own verb and reap it."""
        answer = self.cli("stop", *(["--groups"] if groups else []))
        assert answer.returncode == 0, answer.stderr + self.log()
        assert self.process is not None
        assert self.process.wait(DEADLINE_S) == 0, self.log()
        self.process = None

    def log(self) -> str:
        """Return what it wrote."""
        path = self.folder / "run.log"
        return path.read_text() if path.exists() else ""

    def end_everything(self) -> None:
        """End whatever of this installation still runs, by pid."""
        for _ in range(50):
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self.process is not None:
            self.process.wait(DEADLINE_S)
            self.process = None

    def pids(self) -> list[int]:
        """Return every process whose command line or environment points into the folder."""
        mark = os.fsencode(self.folder)
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                about = (folder / "cmdline").read_bytes()
                environment = (folder / "environ").read_bytes()
                if (mark in about or self.mark in environment) and is_alive(int(folder.name)):
                    found.append(int(folder.name))
        return found

    # -- what it says of itself -------------------------------------------------------------------

    def status(self) -> dict[str, Any] | None:
        """Return the endpoint as `status` shows it; None while nobody answers."""
        answer = self.cli("status", "--json")
        if answer.returncode != 0:
            return None
        whole = json.loads(answer.stdout)
        endpoints = whole["endpoints"]
        return {**endpoints[0], "service": whole["service"]} if endpoints else None

    def children(self, role: str) -> list[dict[str, Any]]:
        """Return the supervisor's record of its children of a role."""
        path = self.state_dir / "run" / "children.json"
        records = json.loads(path.read_text()) if path.exists() else []
        return [record for record in records if record["role"] == role]

    def group_pids(self) -> set[int]:
        """Return the processes of the app."""
        found = set()
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if self.mark in (folder / "environ").read_bytes() and is_alive(int(folder.name)):
                    found.add(int(folder.name))
        return found

    def wait_until_serving(self, version: str) -> dict[str, Any]:
        """Wait until a version is all there is, and nothing is under way."""

        def serving() -> dict[str, Any] | None:
            status = self.status()
            if status is None or status["phase"] != "serving":
                return None
            states = {(group["state"], group["ready"]) for group in status["groups"]}
            is_settled = states == {("started", True)} and len(status["groups"]) == 2
            with contextlib.suppress(ConnectionRefusedError):  # between two supervisors
                return status if is_settled and self.get()[1] == version else None
            return None

        found: dict[str, Any] = wait_for(f"{version} to serve", serving)
        return found

    # -- clients ----------------------------------------------------------------------------------

    def get(self, path: str = "/", host: str = HOST) -> tuple[int, str]:
        """GET through the proxy; return status and version."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers.get("X-Version", "")

    def addresses(self, host: str = HOST) -> list[str]:
        """Ask DNS for the endpoint's addresses."""
        query = dns.message.make_query(host, "A")
        answer = dns.query.udp(query, "127.0.0.1", port=self.ports["dns"], timeout=20)
        return [rdata.to_text() for rrset in answer.answer for rdata in rrset]


@contextmanager
def installed(folder: Path, registry: str, **given: str) -> Iterator[Installation]:
    """Yield an installation that is not started; afterwards nothing of it is left running."""
    installation = Installation(folder=folder, registry=registry, **given)  # type: ignore[arg-type]
    try:
        yield installation
    finally:
        installation.end_everything()
