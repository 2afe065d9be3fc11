"""What is wrong outside is said in one sentence, and what runs keeps running."""

import http.server
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import dns.message
import pytest
from support.service_support import ARGV, HOST, Installation, installed, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture
def house(tmp_path: Path, registry: str) -> Iterator[Installation]:
    with installed(tmp_path, registry) as installation:
        yield installation


def test_a_config_with_three_mistakes_shows_all_three(house: Installation) -> None:
    text = house.config.read_text()
    for right, wrong in (
        ("replicas:", "replica:"),
        ("ttl: 1s", "ttl: soon"),
        ("every: 1s", "every: 5"),
    ):
        text = text.replace(right, wrong)
    house.config.write_text(text)

    for verb in ("run", "validate"):
        words = ["-c", str(house.config)] if verb == "run" else [str(house.config)]
        answer = run(verb, *words)

        assert answer.returncode == 2
        assert 'did you mean "replicas"?' in answer.stderr
        positions = [line for line in answer.stderr.splitlines() if ".yaml:" in line]
        assert len(positions) == 3
    assert not house.state_dir.exists()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*ARGV, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("kind", "name"), [(socket.SOCK_STREAM, "http"), (socket.SOCK_DGRAM, "dns")]
)
@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_in_use_is_one_sentence(
    house: Installation, kind: socket.SocketKind, name: str, *, reuse: bool
) -> None:
    """Also if it is in use by the same user with SO_REUSEPORT, which the kernel would share."""
    with socket.socket(socket.AF_INET, kind) as taken:
        if reuse:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", house.ports[name]))
        if kind is socket.SOCK_STREAM:
            taken.listen()

        answer = house.cli("run")

    assert answer.returncode == 1
    assert f"127.0.0.1:{house.ports[name]}" in answer.stderr
    assert "in use" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not house.state_dir.exists()


def test_a_state_dir_that_cannot_be_written_is_one_sentence(house: Installation) -> None:
    blocked = house.folder / "blocked"
    blocked.write_text("a regular file")
    text = house.config.read_text().replace("state_dir: ./state", "state_dir: ./blocked/state")
    house.config.write_text(text)

    answer = house.cli("run")

    assert answer.returncode == 1
    assert "blocked" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert blocked.read_text() == "a regular file"


def test_a_second_run_is_refused_and_changes_nothing(house: Installation) -> None:
    house.push("v1")
    house.start().wait_until_serving("v1")
    before = house.children("worker")

    answer = house.cli("run")

    assert answer.returncode == 1
    assert len(answer.stderr.strip().splitlines()) == 1
    assert house.children("worker") == before
    assert house.get() == (200, "v1")


class BadRegistry(http.server.BaseHTTPRequestHandler):
    """Shows a new digest, and then something else than what has that digest."""

    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "missing": (404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag"}]}'),
        "garbage": (200, b"<html>a login page</html>"),
        "another": (200, b'{"schemaVersion": 2, "layers": []}'),
    }
    kind = "missing"

    def do_HEAD(self) -> None:
        status, _ = self.answers[self.kind]
        self._say(status, b"")

    def do_GET(self) -> None:
        self._say(*self.answers[self.kind])

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        if self.kind != "garbage":
            self.send_header("Docker-Content-Digest", "sha256:" + "ab" * 32)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def bad_registry(kind: str) -> Iterator[str]:
    if kind == "down":
        yield "127.0.0.1:1"
        return
    handler = type("Handler", (BadRegistry,), {"kind": kind})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_registry_that_fails_changes_nothing_and_is_shown(house: Installation) -> None:
    """Down, without the tag, garbage, or something else than the digest that it showed."""
    house.push("v1")
    stable = house.start().wait_until_serving("v1")["stable"]
    for kind in ("down", "missing", "garbage", "another"):
        with bad_registry(kind) as host:
            house.stop(groups=False)
            house.write_config(registry=host)
            house.start()
            status = wait_for(f"{kind} to be shown", lambda: troubled(house))

        (image,) = status["registry"]
        assert host in image["trouble"], kind
        assert image["trouble_for_s"] >= 0
        assert (status["stable"], status["rollout"]) == (stable, None), kind
        assert house.get() == (200, "v1")


def troubled(house: Installation) -> "dict[str, Any] | None":
    status = house.status()
    if status is None or not status["registry"]:
        return None
    return status if status["registry"][0]["trouble"] else None


def test_garbage_on_any_port_ends_no_worker(house: Installation) -> None:
    house.push("v1")
    house.start().wait_until_serving("v1")
    workers = house.children("worker")
    noise = random.Random(7)  # noqa: S311  noise, not a secret

    for _ in range(300):
        spray_dns(house, noise)
        spray_http(house, noise)

    assert house.get() == (200, "v1")
    assert house.addresses() == ["127.0.0.1"]
    assert house.children("worker") == workers


def spray_dns(house: Installation, noise: random.Random) -> None:
    """Send a query with some bytes changed, and plain noise."""
    packet = bytearray(dns.message.make_query(HOST, "A", use_edns=True).to_wire())
    for _ in range(noise.randrange(1, 6)):
        packet[noise.randrange(len(packet))] = noise.randrange(256)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(packet, ("127.0.0.1", house.ports["dns"]))
        client.sendto(noise.randbytes(noise.randrange(600)), ("127.0.0.1", house.ports["dns"]))


def spray_http(house: Installation, noise: random.Random) -> None:
    """Send a request with some bytes changed."""
    request = bytearray(
        b"POST /a HTTP/1.1\r\nHost: shop.apps.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    )
    for _ in range(noise.randrange(1, 6)):
        request[noise.randrange(len(request))] = noise.randrange(256)
    with socket.create_connection(("127.0.0.1", house.ports["http"])) as client:
        client.sendall(request)
