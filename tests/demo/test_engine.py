"""The engine of `./demo/run --runtime docker`: found or private, and what it leaves behind."""

import shutil
from ipaddress import IPv4Network
from pathlib import Path

import docker
import pytest
import yaml
from support.dockerd import Dockerd, free_subnet, need_dockerd

from demo import engine, processes
from demo.engine import Engine, free_pool
from demo.house import DemoError
from demo.settings import DOCKER_DEADLINE, OnDocker, prepare
from trafficmgr.config.load import load


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own engine out of these tests."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "USUAL", "unix:///nowhere/docker.sock")


def labelled(client: "docker.APIClient", name: str, instance: str) -> None:
    pool = docker.types.IPAMPool(subnet=str(free_subnet()))
    client.create_network(
        name,
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        labels={"trafficmgr.instance": instance},
    )


@pytest.mark.docker
async def test_an_engine_that_answers_is_used_and_left_as_it_was(
    dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = dockerd.client()
    monkeypatch.setenv("DOCKER_HOST", dockerd.host)
    for name, instance in (("demo-own", "own"), ("demo-other", "other")):
        labelled(client, name, instance)

    found = await Engine.ready()
    version = await found.version()
    await found.close("own", "127.0.0.1:1")

    names = {network["Name"] for network in client.networks()}
    client.remove_network("demo-other")
    client.close()
    assert found.host == dockerd.host
    assert version.startswith("running Docker Engine ")
    assert "demo-other" in names
    assert "demo-own" not in names


@pytest.mark.docker
async def test_a_private_engine_leaves_no_process_no_mount_no_file() -> None:
    need_dockerd()

    private = await Engine.ready()
    folder = Path(private.host.removeprefix("unix://")).parent
    containers = await private.containers_of("nobody")
    running = processes.left_of(folder)
    await private.close("nobody", "127.0.0.1:1")

    assert containers == ()
    assert any("dockerd" in command for command in running.values())
    assert processes.left_of(folder) == {}
    assert f" {folder}/" not in Path("/proc/self/mountinfo").read_text("utf-8")
    assert not folder.exists()


async def test_without_docker_the_demo_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(DemoError, match=r"no Docker Engine answers .* install docker.io"):
        await Engine.ready()


def test_on_docker_only_runtime_addresses_and_deadline_differ(tmp_path: Path) -> None:
    pool = free_pool()
    plain = yaml.safe_load(prepare(tmp_path, quick=True).text)
    text = prepare(tmp_path, quick=True, docker=OnDocker("unix:///x.sock", pool)).text
    file = tmp_path / "demo.yaml"
    file.write_text(text, "utf-8")
    docker_ = yaml.safe_load(text)

    assert load(file).runtime.kind == "docker"
    assert docker_.pop("runtime") == {"kind": "docker", "host": "unix:///x.sock"}
    assert IPv4Network(docker_["address_pool"]).subnet_of(engine.BRIDGES)
    deadlines = {endpoint["rollout"]["deadline"] for endpoint in docker_["endpoints"].values()}
    assert deadlines == {DOCKER_DEADLINE}
    for config in (plain, docker_):
        del config["listen"], config["address_pool"]
        for endpoint in config["endpoints"].values():
            del endpoint["group"]
            endpoint["rollout"] = {**endpoint["rollout"], "deadline": "any"}
    assert docker_ == plain
