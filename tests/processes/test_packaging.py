"""The Dockerfile and config/compose.yaml: built and run on a real engine, beside the groups.

Nothing is downloaded: the base is made here (`packaging_support`). The container has exactly the
options of compose.yaml, whose variables name the tests' own engine and folders.
"""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import APIClient
from support.docker_images import ImageShelf, busybox
from support.dockerd import Dockerd, free_subnet
from support.packaging_support import INSTALL, ROOT, base_image, composed, create
from support.service_support import wait_for

from demo.builder import Image
from demo.settings import free_ports

pytestmark = [pytest.mark.processes, pytest.mark.docker]

HOST = "hello.apps.test"
TAG = "trafficmgr:tested"


class Packaged:
    """A trafficmgr in a container, and what can be asked of it."""

    def __init__(self, client: APIClient, container: str, port: int) -> None:
        self.client = client
        self.container = container
        self.port = port

    def get(self) -> bytes:
        """GET through its proxy; b"" if it does not answer with 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/index.html", headers={"Host": HOST})
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else b""
        except OSError:
            return b""
        finally:
            connection.close()

    def run(self, *command: str) -> tuple[int | None, bytes]:
        """Run a command in the container; return its exit code and what it wrote to stdout."""
        made = self.client.exec_create(self.container, list(command), stderr=False)["Id"]
        said = self.client.exec_start(made)
        return self.client.exec_inspect(made)["ExitCode"], said

    def ask(self, *verb: str) -> Any:
        """Return what a verb says with --json."""
        code, said = self.run("trafficmgr", *verb, "--json")
        return json.loads(said) if code == 0 else None

    def groups(self) -> list[str]:
        """Return the pause containers of its groups, which run."""
        wanted = {"label": ["trafficmgr.role=pause", "trafficmgr.endpoint=hello"]}
        return sorted(one["Id"] for one in self.client.containers(filters=wanted))

    def wait_until_serving(self) -> None:
        """Wait for the answer of a group."""
        try:
            wait_for("an answer through the proxy", lambda: self.get() == b"hello", every_s=0.1)
        except AssertionError:
            pytest.fail(self.log())

    def log(self) -> str:
        """Return what it wrote."""
        return bytes(self.client.logs(self.container)).decode()


@pytest.fixture
def client(dockerd: Dockerd) -> Iterator[APIClient]:
    client = dockerd.client(timeout_s=120)
    yield client
    client.close()


@pytest.fixture
def packaged(
    client: APIClient, dockerd: Dockerd, image_shelf: ImageShelf, tmp_path: Path
) -> Iterator[Packaged]:
    """Build the image, and start it as compose.yaml says."""
    built(client, image_shelf)
    push_hello(image_shelf)
    dns, port = free_ports(2)
    config = tmp_path / "etc" / "trafficmgr.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(config_of(image_shelf.host, dns, port)), "utf-8")
    socket = Path(dockerd.host.removeprefix("unix://"))
    variables = {"DOCKER_GID": str(socket.stat().st_gid), "DOCKER_SOCKET": str(socket)}
    service = composed({**variables, "CONFIG_DIR": str(config.parent)})
    container = create(client, service, TAG)
    try:
        client.start(container)
        yield Packaged(client, container, port)
    finally:
        remove_all(client, container)


def built(client: APIClient, shelf: ImageShelf) -> None:
    """Build the tree's Dockerfile, with its context as `docker build` takes it."""
    base = shelf.push(base_image(), repository="test/base")
    arguments = {"BASE": f"{base.repository}:stable", "INSTALL": INSTALL}
    said = []
    for step in client.build(
        path=str(ROOT), tag=TAG, buildargs=arguments, network_mode="none", rm=True, decode=True
    ):
        said.append(step.get("stream", ""))
        assert "error" not in step, "".join([*said, step["error"]])


def config_of(registry: str, dns: int, http_port: int) -> dict[str, Any]:
    """Return a config of one endpoint, whose image is busybox with a page."""
    container = {
        "name": "web",
        "image": f"{registry}/test/hello:stable",
        "ports": [8080],
        "readiness": {"http": {"path": "/index.html"}, "every": "200ms", "rise": 1},
    }
    return {
        "runtime": "docker",
        "state_dir": "/var/lib/trafficmgr",
        "address_pool": str(free_subnet()),
        "workers": 1,
        "listen": {"dns": [f"127.0.0.1:{dns}"], "http": [f"127.0.0.1:{http_port}"]},
        "zones": [{"name": "apps.test", "ns": ["ns1.apps.test"]}],
        "endpoints": {
            "hello": {
                "hosts": [HOST],
                "group": {"containers": [container]},
                "update": {"every": "1s"},
                "rollout": {"min_ready": "0s"},
                "drain": {"http": "1s", "websocket": "1s"},
            }
        },
    }


def push_hello(shelf: ImageShelf) -> None:
    """Push what the endpoint runs."""
    entrypoint = ["/bin/busybox", "httpd", "-f", "-p", "0.0.0.0:8080", "-h", "/www"]
    image = Image(
        files={"www/index.html": b"hello"}, layers=(busybox(),), config={"Entrypoint": entrypoint}
    )
    shelf.push(image, repository="test/hello")


def remove_all(client: APIClient, container: str) -> None:
    """Remove the container and its volume, and what a failed test has left of its groups."""
    client.remove_container(container, force=True, v=True)
    for one in client.containers(all=True, filters={"label": "trafficmgr.endpoint=hello"}):
        client.remove_container(one["Id"], force=True, v=True)
    client.remove_volume("state")


def test_it_runs_in_a_container_beside_its_groups(packaged: Packaged, client: APIClient) -> None:
    packaged.wait_until_serving()

    about = client.inspect_container(packaged.container)
    healthcheck = about["Config"]["Healthcheck"]["Test"][1:]
    code, said = packaged.run(*healthcheck)
    assert (code, json.loads(said)["endpoints"][0]["name"]) == (0, "hello"), packaged.log()
    assert packaged.run("id", "-u")[1].strip() == b"10001"
    assert "/sys/fs/cgroup" in packaged.ask("doctor")["runtimes"]["docker"]["gaps"]["group_limits"]

    first = packaged.groups()
    client.stop(packaged.container, timeout=30)

    stopped = client.inspect_container(packaged.container)["State"]
    assert (stopped["ExitCode"], len(first)) == (0, 1), packaged.log()
    assert packaged.groups() == first

    client.start(packaged.container)
    packaged.wait_until_serving()

    assert packaged.groups() == first, packaged.log()

    never: Any = {"Name": "no"}  # the stubs don't know it
    client.update_container(packaged.container, restart_policy=never)
    packaged.run("trafficmgr", "stop", "--groups")
    ended = client.wait(packaged.container, timeout=60)

    assert ended["StatusCode"] == 0, packaged.log()
    assert packaged.groups() == []
