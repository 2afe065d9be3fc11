"""What is wrong outside is said in one sentence, and what runs keeps running."""

import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def test_a_registry_that_fails_changes_nothing_and_is_shown(house: Installation) -> None:
    house.push("v1")
    house.start().wait_until_serving("v1")
    house.stop(groups=False)
    house.write_config(registry="127.0.0.1:1")

    house.start()
    status = wait_for("the trouble to be shown", lambda: troubled(house))

    (image,) = status["registry"]
    assert "127.0.0.1:1" in image["trouble"]
    assert image["trouble_for_s"] >= 0
    assert house.get() == (200, "v1")
    assert status["stable"]


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
