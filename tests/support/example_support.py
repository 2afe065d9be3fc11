"""The complete examples as installations: a config file of the tree, adapted to a run.

Only places differ from the file: ports, folders, the registry, the groups' addresses, and the
runtime. A runtime is "embedded" or "docker"; for the latter the images have `demo.base` below them.
"""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import base
from demo.builder import Image, Layer, push
from support.dockerd import Dockerd, free_subnet
from support.service_support import ARGV, DEADLINE_S, Installation, installed

RUNTIMES = (
    pytest.param("embedded", id="embedded"),
    pytest.param("docker", marks=pytest.mark.docker, id="docker"),
)


class Example:
    """An example's installation.

    Attributes:
        house: The installation.
        config: What its file says; `write` writes it.
        layers: What its images need below them.
    """

    def __init__(self, house: Installation, config: Any, dockerd: Dockerd | None) -> None:
        self.house = house
        self.config = config
        self.dockerd = dockerd
        self.layers: tuple[Layer, ...] = ()
        config["state_dir"] = str(house.state_dir)
        listen = {name: [f"127.0.0.1:{port}"] for name, port in house.ports.items()}
        config["listen"] = listen
        config["address_pool"] = f"127.{house.pool}.0/20"
        config["workers"] = 2
        if dockerd is not None:
            self.layers = (base.layer(),)
            config["runtime"] = {"kind": "docker", "host": dockerd.host}
            config["address_pool"] = str(free_subnet())
        for endpoint in config["endpoints"].values():
            for container in _containers(endpoint["group"]):
                repository = container["image"].partition("/")[2]
                container["image"] = f"{house.registry}/{repository}"

    def write(self) -> None:
        """Write the config."""
        self.house.config.write_text(yaml.safe_dump(self.config, sort_keys=False), "utf-8")

    def push(self, images: dict[str, Image]) -> None:
        """Push images: repository -> image, tagged as the config follows them."""
        url = f"http://{self.house.registry}"

        async def push_all() -> None:
            for repository, image in images.items():
                await push(url, repository, "stable", image)

        asyncio.run(push_all())

    def endpoint(self, name: str) -> dict[str, Any] | None:
        """Return an endpoint as `status` shows it, once it serves and all of its groups do."""
        answer = self.house.cli("status", "--json")
        if answer.returncode != 0:
            return None
        found = {one["name"]: one for one in json.loads(answer.stdout)["endpoints"]}
        endpoint: dict[str, Any] | None = found.get(name)
        if endpoint is None or endpoint["phase"] != "serving":
            return None
        replicas = self.config["endpoints"][name]["group"].get("replicas", 1)
        states = [(group["state"], group["ready"]) for group in endpoint["groups"]]
        return endpoint if states == [("started", True)] * replicas else None

    def logs(self, group: str, container: str) -> str:
        """Return what a container has written, as `logs` prints it."""
        answer = subprocess.run(
            [*ARGV, "logs", group, "-c", container, "--config", str(self.house.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def containers(self) -> list[str]:
        """Return the names of our containers on the engine; none without one."""
        if self.dockerd is None:
            return []
        instance = (self.house.state_dir / "instance").read_text().strip()
        wanted = {"label": f"trafficmgr.instance={instance}"}
        client = self.dockerd.client()
        try:
            return [one["Names"][0] for one in client.containers(all=True, filters=wanted)]
        finally:
            client.close()


@contextmanager
def example(folder: Path, registry: str, config: Any, dockerd: Dockerd | None) -> Iterator[Example]:
    """Yield an example that is not started; afterwards nothing of it is left running."""
    with installed(folder, registry) as house:
        yield Example(house, config, dockerd)


def engine_of(runtime: str, request: pytest.FixtureRequest) -> Dockerd | None:
    """Return the engine that a runtime of RUNTIMES needs."""
    engine: Dockerd | None = request.getfixturevalue("dockerd") if runtime == "docker" else None
    return engine


def need_port_80() -> None:
    """Skip the test, or fail it where CI is "true", if nobody may listen on port 80 here."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.255.255.254", 80))
        except PermissionError:
            reason = "listening on port 80 needs root, or net.ipv4.ip_unprivileged_port_start=80"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def _containers(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from group.get("init_containers", [])
    yield from group["containers"]
