"""The small examples of config/, each started once on each runtime, with programs of demo/examples.

All four are endpoints of one installation: what is tried is what each says about its group.
"""

import contextlib
import http.client
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.example_support import RUNTIMES, Example, engine_of, example, need_port_80
from support.service_support import wait_for

from demo.examples.images import PROGRAMS, image_of

pytestmark = pytest.mark.processes

CONFIGS = Path(__file__).parents[2] / "config"
PULLER, SHIPPER, MONITOR, FRONT = NAMES = (
    "app-and-source-puller",
    "app-and-log-shipper",
    "app-and-monitor",
    "front-and-back",
)
CONTENT = b"<h1>what the source says</h1>\n"
IP_FREEBIND = 15
"""Of <linux/in.h>: an address may be bound before there is an interface that has it."""


class Source(http.server.ThreadingHTTPServer):
    """Where a site's content comes from, outside of all groups."""

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        super().server_bind()


class SourceHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def source_at(address: str) -> Iterator[str]:
    """Serve the content at an address, which may come later; yield where."""
    with Source((address, 0), SourceHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://{address}:{server.server_address[1]}/index.html"
        server.shutdown()
        thread.join()


def all_four() -> dict[str, Any]:
    """Return a config with the endpoint of each file; it has the file's name, and one group."""
    endpoints = {}
    for name in NAMES:
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text("utf-8"))
        (endpoint,) = config["endpoints"].values()
        endpoint["hosts"] = [f"{name}.apps.test"]
        endpoint["group"]["replicas"] = 1
        endpoint["rollout"] = {"min_ready": "0s"}
        endpoints[name] = endpoint
    return {"endpoints": endpoints}


def set_source(run: Example, url: str) -> None:
    group = run.config["endpoints"][PULLER]["group"]
    for container in (*group["init_containers"], *group["containers"]):
        if "SOURCE" in container.get("env", {}):
            container["env"]["SOURCE"] = url


@pytest.fixture(scope="module", params=RUNTIMES)
def running(
    request: pytest.FixtureRequest, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Example]:
    """All four, serving."""
    need_port_80()
    engine = engine_of(request.param, request)
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("examples")
        run = stack.enter_context(example(folder, registry, all_four(), engine))
        gateway = str(IPv4Network(run.config["address_pool"])[-2])
        set_source(run, stack.enter_context(source_at(gateway if engine else "127.0.0.1")))
        run.write()
        run.push({repository: image_of(repository, run.layers) for repository in PROGRAMS})
        run.house.start()
        for name in NAMES:
            wait_for(f"{name} to serve", partial(run.endpoint, name), every_s=0.2)
        yield run
        run.house.stop(groups=True)
        assert run.containers() == []


def get(run: Example, name: str, path: str) -> tuple[int, bytes]:
    """GET from an endpoint, through the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", run.house.ports["http"], timeout=30)
    with closing(connection):
        connection.request("GET", path, headers={"Host": f"{name}.apps.test"})
        response = connection.getresponse()
        return response.status, response.read()


def group_of(run: Example, name: str) -> str:
    endpoint = run.endpoint(name)
    assert endpoint is not None
    group: str = endpoint["groups"][0]["id"]
    return group


def test_a_site_serves_what_was_pulled_before_it_started(running: Example) -> None:
    assert get(running, PULLER, "/index.html") == (200, CONTENT)
    assert "pulled" in running.logs(group_of(running, PULLER), "first-pull")


def test_a_shipper_ships_what_the_app_writes_to_its_file(running: Example) -> None:
    assert get(running, SHIPPER, "/for-the-log")[0] == 200

    group = group_of(running, SHIPPER)
    wait_for(
        "the line to be shipped",
        lambda: "shipped: GET /for-the-log 200\n" in running.logs(group, "shipper"),
    )


def test_a_monitor_asks_the_app_over_localhost(running: Example) -> None:
    group = group_of(running, MONITOR)

    wait_for("a good answer", lambda: "200 after" in running.logs(group, "monitor"))


def test_a_front_end_has_it_from_its_back_end(running: Example) -> None:
    status, body = get(running, FRONT, "/x")

    assert status == 200
    assert body == b"the front has it from the back: hello from shop/back, you asked for /x\n"
