"""The tests' own engine and its obedient application: what other tests build on."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from docker.types import IPAMConfig, IPAMPool

import support.dockerd as dockerd_module
from support.docker_images import ImageShelf
from support.dockerd import Dockerd, filter_rules, free_subnet, need_dockerd
from support.runtime_support import DEADLINE_S
from trafficmgr.core.template import ImageDigest

pytestmark = [pytest.mark.docker, pytest.mark.processes]

PORT = 80

OPENER = """
from support.dockerd import Dockerd
engine = Dockerd()
engine.start()
print(engine.folder)
input()
"""


class Container:
    """A container of the obedient application on a bridge of its own."""

    def __init__(self, engine: Dockerd, image: ImageDigest, **host_config: Any) -> None:
        self.client = engine.client()
        name = f"{image.repository}@{image.digest}"
        self.client.pull(name)
        subnet = free_subnet()
        self.address = str(next(subnet.hosts()) + 1)
        self.network = self.client.create_network(
            f"tests-{subnet.network_address}",
            ipam=ipam_of(subnet),
        )["Id"]
        endpoint = self.client.create_endpoint_config(ipv4_address=self.address)
        self.id = self.client.create_container(
            name,
            environment={"PORT": str(PORT), "TEXT": 'say "two\nlines"'},
            host_config=self.client.create_host_config(
                network_mode=self.network, init=True, **host_config
            ),
            networking_config={"EndpointsConfig": {self.network: endpoint}},
        )["Id"]
        self.client.start(self.id)

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.client.inspect_container(self.id)["State"]
        return state

    @property
    def written(self) -> str:
        text: bytes = self.client.logs(self.id)
        return text.decode()

    def tell(self, line: str) -> str:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                peer = socket.create_connection((self.address, PORT), DEADLINE_S)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, f"nobody listens: {self.written}"
                time.sleep(0.01)
                continue
            with peer, contextlib.suppress(ConnectionResetError):
                peer.sendall(f"{line}\n".encode())
                return peer.makefile().readline().strip()
            return ""

    def wait(self) -> int:
        code: int = self.client.wait(self.id, timeout=int(DEADLINE_S))["StatusCode"]
        return code

    def close(self) -> None:
        self.client.remove_container(self.id, force=True)
        self.client.remove_network(self.network)
        self.client.close()


def ipam_of(subnet: IPv4Network) -> IPAMConfig:
    return IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))])


@contextlib.contextmanager
def app(engine: Dockerd, image: ImageDigest, **host_config: Any) -> Iterator[Container]:
    with contextlib.closing(Container(engine, image, **host_config)) as container:
        yield container


def wait_until_gone(*paths: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while left := [path for path in paths if path.exists()]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def traces(folder: Path) -> list[str]:
    """Return what is left of an engine: processes, mounts, cgroups, sockets."""
    texts = {
        **{str(process): process / "cmdline" for process in Path("/proc").glob("[0-9]*")},
        "mounts": Path("/proc/self/mountinfo"),
        "sockets": Path("/proc/net/unix"),
    }
    found = []
    for name, path in texts.items():
        with contextlib.suppress(OSError):
            if f"{folder}/".encode() in path.read_bytes():
                found.append(name)
    return found + [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{folder.name}")]


# -- the engine -----------------------------------------------------------------------------------


def test_an_engine_leaves_nothing_behind(app_digest: ImageDigest) -> None:
    with Dockerd() as engine:
        container = Container(engine, app_digest)
        container.tell("child daemon")
        process = Path("/proc", str(container.state["Pid"]), "exe")
        bridge = Path(f"/sys/class/net/br-{container.network[:12]}")
        assert traces(engine.folder)  # or this test sees nothing
        assert bridge.exists()
        container.client.close()

    wait_until_gone(engine.folder, process, bridge)
    assert traces(engine.folder) == []
    assert not any(engine.folder.name in rule for rule in filter_rules())


def test_an_engine_ends_with_the_process_that_opened_it() -> None:
    need_dockerd()
    opener = subprocess.Popen(
        [
            *(sys.executable, "-u", "-c"),
            OPENER,
        ],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with opener:
        assert opener.stdout is not None
        folder = Path(opener.stdout.readline().decode().strip())
        assert traces(folder)

        opener.send_signal(signal.SIGKILL)

    wait_until_gone(folder)
    assert traces(folder) == []


@pytest.mark.parametrize("how", [Dockerd.stop, Dockerd.kill])
def test_an_engine_comes_back_with_its_data(app_digest: ImageDigest, how: Any) -> None:
    with Dockerd() as engine, app(engine, app_digest) as container:
        container.tell("say hello")

        how(engine)
        engine.start()

        assert container.state["Running"] is False  # it takes its containers down, then or now
        assert "hello" in container.written


def test_a_free_subnet_is_free(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    both = dockerd_module.free_subnet(prefix_len=23)
    monkeypatch.setattr(dockerd_module, "BRIDGES", both)  # room for two, and one is taken
    one, other = both.subnets()
    with contextlib.closing(dockerd.client()) as client:
        network = client.create_network("one", ipam=ipam_of(one))["Id"]
        try:
            assert free_subnet() == other
        finally:
            client.remove_network(network)


# -- the obedient application ---------------------------------------------------------------------


def test_the_application_tells_about_itself(dockerd: Dockerd, app_digest: ImageDigest) -> None:
    with app(dockerd, app_digest) as container:
        env = json.loads(container.tell("env"))
        pid, group, _, parent = json.loads(container.tell("ids"))

        assert (env["COLOUR"], env["TEXT"]) == ("green", 'say "two\nlines"')
        assert (pid, parent) == (group, 1)
        assert container.tell("cwd") == "/app"
        assert container.tell("whoami") == "0:0"
        assert container.tell("read /etc/group") == "root:x:0: app:x:1000:"
        assert "No such file" in container.tell("read /none")


def test_the_application_does_what_it_is_told(dockerd: Dockerd, app_digest: ImageDigest) -> None:
    with app(dockerd, app_digest) as container:
        container.tell("say hello you")
        container.tell("child")
        container.tell("child daemon")
        container.tell("write /tmp/x some text")

        assert container.tell("read /tmp/x") == "some text"
        assert "can't create" in container.tell("write /none/x text")
        assert "refused" in container.tell("get http://127.0.0.1:81/")
        assert container.written.startswith("started\nhello you\n")
        deadline = time.monotonic() + DEADLINE_S
        while container.written.count("child ") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert container.written.count("child ") == 2


@pytest.mark.parametrize(
    ("line", "code"), [("exit 3", 3), ("exit 0", 0), ("kill 9", 137), ("kill 15", 143)]
)
def test_the_application_ends_as_it_is_told(
    dockerd: Dockerd, app_digest: ImageDigest, line: str, code: int
) -> None:
    with app(dockerd, app_digest) as container:
        container.tell(line)

        assert container.wait() == code


def test_the_application_can_ignore_its_end(dockerd: Dockerd, app_digest: ImageDigest) -> None:
    with app(dockerd, app_digest) as container:
        container.tell("ignore")

        container.client.stop(container.id, timeout=1)

        assert container.wait() == 137


def test_the_application_can_want_too_much(dockerd: Dockerd, app_digest: ImageDigest) -> None:
    with app(dockerd, app_digest, mem_limit="48m", pids_limit=50) as container:
        assert int(container.tell("fork 20")) > 20
        assert int(container.tell("fork 200")) < 60
    with app(dockerd, app_digest, mem_limit="48m") as container:
        container.tell(f"hog {10**8} child")
        assert container.tell("cwd") == "/app"  # it is still there
        container.tell(f"hog {10**8}")

        assert container.wait() == 137
        assert container.state["OOMKilled"] is True


def test_an_image_is_pulled_by_its_digest(dockerd: Dockerd, image_shelf: ImageShelf) -> None:
    digest = image_shelf.app("other", Env=["PATH=/bin", "COLOUR=blue"], User="1000:1000")

    with app(dockerd, digest) as container:
        assert json.loads(container.tell("env"))["COLOUR"] == "blue"
        assert container.tell("whoami") == "1000:1000"
