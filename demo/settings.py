"""The demo's own copy of config/demo.yaml: free ports, its own folders, and shorter holds.

Nothing else differs from the file that README explains; whatever the demo must know about the
endpoints it reads from there too. With Docker the runtime, the addresses of its groups and the
deadline of a rollout are Docker's.
"""

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.load import Plan

SOURCE = Path(__file__).parent.parent / "config" / "demo.yaml"

QUICK_HOLDS = ("2s", "4s")
"""Holds of --quick. A share near 50 per cent needs more answers for the same certainty: 540 a
second tell it to 1.2 points in 3.4 s, and 10 per cent to 1.1 points in 1.4 s (one sigma)."""

DOCKER_DEADLINE = "20s"
"""An engine needs about half a second for a container, and six groups of two start at once."""

SHOP, API = "shop", "api"
"""The endpoint behind the proxy, and the one whose groups are published."""


@dataclass(frozen=True)
class DemoSettings:
    """Where everything is, and the text of the configuration that says so to trafficmgr."""

    registry_port: int
    repository: str
    tag: str
    state_dir: Path
    plan: Plan
    weights: tuple[int, ...]
    holds_s: float
    replicas: int
    text: str

    @property
    def registry(self) -> str:
        """The host of the run's registry, as image references begin."""
        return f"127.0.0.1:{self.registry_port}"

    def instance(self) -> str:
        """Return the name of the installation; "" as long as it has none."""
        path = self.state_dir / "instance"
        return path.read_text("utf-8").strip() if path.exists() else ""


@dataclass(frozen=True)
class OnDocker:
    """The engine of the run, "unix:///...", and a network for its groups that nobody has."""

    host: str
    address_pool: str


def prepare(
    work: Path, *, quick: bool, source: Path = SOURCE, docker: OnDocker | None = None
) -> DemoSettings:
    """Return the settings for a run in a work folder."""
    dns_port, http_port, registry_port = free_ports(3)
    config = yaml.safe_load(source.read_text("utf-8"))
    config["state_dir"] = str(work / "state")
    config["listen"] = {"dns": [f"127.0.0.1:{dns_port}"], "http": [f"127.0.0.1:{http_port}"]}
    config["address_pool"] = f"127.{random.randint(64, 126)}.{random.randint(0, 255)}.0/24"
    for endpoint in config["endpoints"].values():
        _adapt(endpoint, registry_port=registry_port, quick=quick)
        if docker is not None:
            endpoint["rollout"]["deadline"] = DOCKER_DEADLINE
    if docker is not None:
        config["runtime"] = {"kind": "docker", "host": docker.host}
        config["address_pool"] = docker.address_pool
    shop, api = config["endpoints"][SHOP], config["endpoints"][API]
    container = shop["group"]["containers"][0]
    _, repository, tag = _parts(container["image"])
    steps = shop["rollout"]["steps"]
    return DemoSettings(
        registry_port=registry_port,
        repository=repository,
        tag=tag,
        state_dir=work / "state",
        plan=Plan(
            http=("127.0.0.1", http_port),
            proxy_host=shop["hosts"][0],
            dns=("127.0.0.1", dns_port),
            dns_host=api["hosts"][0],
            group_port=api["group"]["containers"][0]["ports"][0],
        ),
        weights=tuple(step["weight"] for step in steps),
        holds_s=sum(float(step["hold"].removesuffix("s")) for step in steps),
        replicas=shop["group"]["replicas"],
        text=yaml.safe_dump(config, sort_keys=False),
    )


def _adapt(endpoint: dict[str, Any], *, registry_port: int, quick: bool) -> None:
    """Point an endpoint at the run's registry, and shorten its holds."""
    for container in endpoint["group"]["containers"]:
        _, repository, tag = _parts(container["image"])
        container["image"] = f"127.0.0.1:{registry_port}/{repository}:{tag}"
    if quick:
        for step, hold in zip(endpoint["rollout"]["steps"], QUICK_HOLDS, strict=True):
            step["hold"] = hold


def _parts(image: str) -> tuple[str, str, str]:
    """Return registry, repository and tag of an image reference that has all three."""
    registry, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    return registry, repository, tag


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody has right now, over UDP and TCP."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports
