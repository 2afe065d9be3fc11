"""`trafficmgr doctor`: what a config would miss on this machine."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support.cli_support import VALID_CONFIG, invoke

from trafficmgr.cli import examination
from trafficmgr.cli.examination import examined
from trafficmgr.config.load import load
from trafficmgr.config.settings import Address, Settings
from trafficmgr.runtimes.contract import BEHAVIOURS, RuntimeFailure
from trafficmgr.runtimes.embedded import pool
from trafficmgr.supervisor.identity import identity_of

LIMITED = VALID_CONFIG.replace("ports: [8080]", "ports: [8080], resources: {memory: 64MiB}")
MOUNTED = VALID_CONFIG.replace(
    "ports: [8080]", "ports: [8080], mounts: [{volume: data, path: /data}]"
).replace("      replicas: 2", "      replicas: 2\n      volumes: [{name: data, empty_dir: {}}]")
POOL = "127.78.240.0/24"


def free_ports() -> Iterator[int]:
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]


def written(folder: Path, text: str = VALID_CONFIG) -> Path:
    """Write a config with free ports and a pool of its own."""
    ports = free_ports()
    text = text.replace(":5300", f":{next(ports)}").replace('8080"]', f'{next(ports)}"]')
    file = folder / "trafficmgr.yaml"
    file.write_text(f"address_pool: {POOL}\n{text}")
    return file


def gaps_of(settings: Settings) -> Mapping[str, str]:
    """Be an embedded engine that has no limits, and a Docker that is away."""
    if settings.runtime.kind == "docker":
        raise RuntimeFailure("docker: nobody answers at unix:///var/run/docker.sock.")
    return {"memory_limit": "no cgroup can be written to", "isolated_files": "process mode"}


def troubles(settings: Settings) -> list[str]:
    found = examined(settings, gaps_of)
    return [f"{check.what}: {check.says}" for check in found.checks if not check.is_ok]


@pytest.fixture(autouse=True)
def _engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trafficmgr.service.runtime.gaps_of", gaps_of, raising=False)


# -- the verb -------------------------------------------------------------------------------------


def test_a_config_that_can_have_all_it_needs_is_0(tmp_path: Path) -> None:
    result = invoke("doctor", "--config", written(tmp_path))

    assert result.exit_code == 0, result.stdout + result.stderr
    rows = {
        line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines() if line
    }
    assert rows["isolated_files"].startswith("process mode")
    assert rows["exec"].startswith("ok ")
    assert rows["exec"].endswith("not usable here")
    assert rows.keys() >= BEHAVIOURS.keys()
    assert "docker is not usable here: docker: nobody answers at" in result.stdout


def test_what_the_config_asks_for_and_cannot_have_is_1_and_named(tmp_path: Path) -> None:
    result = invoke("doctor", "--config", written(tmp_path, LIMITED))

    assert result.exit_code == 1
    assert "shop: memory_limit: no cgroup can be written to" in result.stdout
    assert "asks for something that it does not get here" in result.stderr


def test_a_gap_that_names_another_way_is_shown_and_forgiven(tmp_path: Path) -> None:
    """Process mode has no mounts; the folder is in a variable."""
    found = examined(
        load(written(tmp_path, MOUNTED)), lambda _: {"mount_paths": "it is in VOLUME_DATA"}
    )

    assert ("shop", "mount_paths", "it is in VOLUME_DATA") in found.missing
    assert found.is_ok


def test_json_says_the_same(tmp_path: Path) -> None:
    result = invoke("doctor", "--json", "--config", written(tmp_path, LIMITED))

    found = json.loads(result.stdout)
    assert not found["is_ok"]
    assert found["missing"] == [
        {"endpoint": "shop", "behaviour": "memory_limit", "why": "no cgroup can be written to"}
    ]
    assert found["runtimes"]["embedded"]["gaps"].keys() == {"memory_limit", "isolated_files"}
    assert found["runtimes"]["docker"]["trouble"].startswith("docker: nobody answers")
    assert found["behaviours"] == BEHAVIOURS


def test_a_config_with_mistakes_is_2(tmp_path: Path) -> None:
    file = written(tmp_path, VALID_CONFIG.replace("replicas", "replica"))

    result = invoke("doctor", "--config", file)

    assert result.exit_code == 2
    assert 'did you mean "replicas"?' in result.stderr


# -- what is looked at ----------------------------------------------------------------------------


def test_nothing_is_changed(tmp_path: Path) -> None:
    file = written(tmp_path)

    invoke("doctor", "--config", file)

    assert list(tmp_path.iterdir()) == [file]


def test_a_port_in_use_is_a_problem_unless_it_is_the_services_own(tmp_path: Path) -> None:
    settings = load(written(tmp_path))
    (address,) = settings.listen_http
    with socket.create_server((address.host, address.port)):
        (trouble,) = troubles(settings)
        assert trouble.startswith(f"http {address}: can't be listened at: Address already in use")

        settings.state_dir.mkdir()
        identity = identity_of(os.getpid())
        assert identity is not None
        (settings.state_dir / "supervisor.lock").write_text(json.dumps(asdict(identity)))
        assert troubles(settings) == []


def test_a_port_of_tls_in_use_is_a_problem(tmp_path: Path) -> None:
    settings = load(written(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])

        (trouble,) = troubles(replace(settings, listen_https=(address,)))

    assert trouble.startswith(f"https {address}: can't be listened at: Address already in use")


def test_a_udp_port_in_use_is_noticed_as_well(tmp_path: Path) -> None:
    settings = load(written(tmp_path))
    (address,) = settings.listen_dns
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((address.host, address.port))

        (trouble,) = troubles(settings)

    assert trouble.startswith(f"dns {address}: can't be listened at")


def test_a_pool_that_another_installation_has_is_a_problem(tmp_path: Path) -> None:
    settings = load(written(tmp_path))
    with pool.locked(POOL):
        (trouble,) = troubles(settings)

    assert "another trafficmgr on this machine" in trouble
    assert troubles(settings) == [], "it was left locked"


def test_a_service_that_runs_does_not_keep_its_runtime_from_being_looked_at(
    tmp_path: Path,
) -> None:
    """It holds the lock on its pool for as long as it lives."""

    def opened(settings: Settings) -> Mapping[str, str]:
        with pool.locked(settings.address_pool):
            return {}

    settings = load(written(tmp_path))
    with pool.locked(POOL):
        found = examined(settings, opened)

    assert found.engines["embedded"].trouble == ""


def test_a_state_dir_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("a file")

    (trouble,) = troubles(load(written(tmp_path)))

    assert "can't be written to" in trouble


def test_a_secret_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("canary-3f9a")
    secrets = "secrets: {token: {file: ./gone}, other: {file: ./there}}\n"
    settings = load(written(tmp_path, secrets + VALID_CONFIG))

    (trouble,) = troubles(settings)

    assert f'secret "token" (file {tmp_path / "gone"}) can' in trouble
    assert "canary" not in repr(examined(settings, gaps_of))


def test_an_engine_that_does_not_answer_is_a_problem_if_the_config_names_it(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_text(f"runtime: docker\n{file.read_text()}".replace(POOL, "10.213.0.0/16"))

    found = troubles(load(file))

    assert found == ["runtime docker: docker: nobody answers at unix:///var/run/docker.sock."]


@pytest.mark.parametrize(
    ("route", "is_taken"),
    [
        ("eth0 0000D50A 00000000 0001 0 0 0 0000FFFF 0 0 0", True),  # 10.213.0.0/16
        ("eth0 0000000A 00000000 0001 0 0 0 000000FF 0 0 0", True),  # 10.0.0.0/8
        ("eth0 0000D60A 00000000 0001 0 0 0 0000FFFF 0 0 0", False),  # 10.214.0.0/16
        ("eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0", False),  # the default route
        ("br0 0000D50A 00000000 0001 0 0 0 0000FFFF 0 0 0", False),  # an engine's own network
    ],
)
def test_a_pool_that_the_host_reaches_elsewhere_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str, *, is_taken: bool
) -> None:
    (tmp_path / "route").write_text(f"Iface Destination Gateway ...\n{route}\n")
    (tmp_path / "net" / "br0" / "bridge").mkdir(parents=True)
    monkeypatch.setattr(examination, "ROUTES", tmp_path / "route")
    monkeypatch.setattr(examination, "INTERFACES", tmp_path / "net")
    file = written(tmp_path)
    file.write_text(f"runtime: docker\n{file.read_text()}".replace(POOL, "10.213.0.0/16"))

    found = troubles(load(file))

    assert any("the host reaches addresses of it by eth0" in one for one in found) is is_taken
