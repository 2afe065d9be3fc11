"""Another config for a running service: what clients see of it, and what a kill changes."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.client_support import Load
from support.service_support import (
    HOST,
    Installation,
    installed,
    is_alive,
    wait_for,
)

from trafficmgr.cli.client import Client
from trafficmgr.cli.place import Place

pytestmark = pytest.mark.processes

Config = dict[str, Any]


@pytest.fixture
def house(tmp_path: Path, registry: str) -> Iterator[Installation]:
    with installed(tmp_path, registry) as installation:
        installation.push("v1")
        yield installation


def config_of(house: Installation) -> Config:
    written: Config = yaml.safe_load(house.config.read_text())
    return written


def endpoint(config: Config, *, host: str, replicas: int = 1) -> Config:
    """Return an endpoint like the shop at another host."""
    shop = config["endpoints"]["shop"]
    return {**shop, "hosts": [host], "group": {**shop["group"], "replicas": replicas}}


def write(file: Path, config: Config) -> Path:
    file.write_text(yaml.safe_dump(config))
    return file


def apply(house: Installation, config: Config, *, says: str = "") -> None:
    """Apply a config by way of a file that is gone afterwards: nobody may need it again."""
    file = write(house.folder / "next.yaml", config)
    answer = house.cli("apply", str(file))
    file.unlink()
    assert answer.returncode == 0, answer.stderr
    assert says in answer.stdout


def endpoints(house: Installation) -> dict[str, Any]:
    answer = house.cli("status", "--json")
    if answer.returncode != 0:
        return {}
    return {one["name"]: one for one in json.loads(answer.stdout)["endpoints"]}


def settings(house: Installation) -> Config:
    """Return what the journal says last about the settings of the shop."""
    answer = house.cli("events", "shop", "--limit", "10000", "--json")
    assert answer.returncode == 0, answer.stderr
    events = [e["event"] for e in json.loads(answer.stdout) if e["kind"] == "SettingsApplied"]
    found: Config = events[-1]["settings"]
    return found


def in_flight(house: Installation, name: str) -> bool:
    lines = Client(Place(house.state_dir)).stream("/metrics")
    mark = f'trafficmgr_in_flight{{endpoint="{name}"'.encode()
    return any(line.startswith(mark) and line.rstrip().endswith(b" 1.0") for line in lines)


def kill_controller(house: Installation) -> None:
    (controller,) = house.children("controller")
    os.kill(controller["pid"], signal.SIGKILL)
    wait_for("the controller to be gone", lambda: not is_alive(controller["pid"]))
    wait_for("a new controller", house.status)


def test_a_new_endpoint_serves_and_a_removed_one_drains(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    config = config_of(house)
    blog = endpoint(config, host="blog.apps.test")
    both = {**config, "endpoints": {**config["endpoints"], "blog": blog}}

    with Load(house.ports["http"]) as load:
        apply(house, both, says="blog: new")
        wait_for("blog to serve", lambda: house.get(host="blog.apps.test") == (200, "v1"))
        load.wait_for_more(50)
        assert house.addresses("blog.apps.test") == ["127.0.0.1"]

        with Load(house.ports["http"], host="blog.apps.test") as blog_load:
            blog_load.wait_for_more(50)
        apply(house, config, says="blog: removed; its 1 group drains first")
        wait_for("blog to be gone", lambda: list(endpoints(house)) == ["shop"])
        load.wait_for_more(50)

    assert load.failed == []
    assert load.cut == 0
    assert blog_load.failed == []
    assert house.get(host="blog.apps.test")[0] == 503
    house.wait_until_serving("v1")


def test_a_request_to_a_removed_endpoint_is_answered_to_its_end(house: Installation) -> None:
    """Removed means no new request; one that is under way has `drain.http`."""
    house.start().wait_until_serving("v1")
    config = config_of(house)
    blog = endpoint(config, host="blog.apps.test")
    apply(house, {**config, "endpoints": {**config["endpoints"], "blog": blog}})
    wait_for("blog to serve", lambda: house.get(host="blog.apps.test") == (200, "v1"))

    with socket.create_connection(("127.0.0.1", house.ports["http"]), timeout=30) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: blog.apps.test\r\nContent-Length: 4\r\n\r\nha")
        wait_for("it to be under way", lambda: in_flight(house, "blog"))
        apply(house, config)
        wait_for("no new request", lambda: house.get(host="blog.apps.test")[0] == 503)
        waits = house.cli("why", "blog").stdout
        assert "waits for requests to finish" in waits
        slow.sendall(b"ha")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    wait_for("blog to be gone", lambda: "blog" not in endpoints(house))


def test_a_changed_group_rolls_out_and_no_request_fails(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    config = config_of(house)
    shop = config["endpoints"]["shop"]
    before = endpoints(house)["shop"]["stable"]
    shop["group"]["containers"][0]["env"] = {"GREETING": "hello"}
    shop["rollout"]["steps"] = [{"weight": 20, "hold": "200ms"}]
    shop["group"]["containers"][0]["ports"] = [9090]
    shop["group"]["containers"][0]["readiness"]["http"]["port"] = 9090

    with Load(house.ports["http"]) as load:
        load.wait_for_more(20)
        apply(house, config, says="a new revision is rolled out")
        wait_for(
            "the new revision", lambda: endpoints(house)["shop"]["stable"] not in {None, before}
        )
        house.wait_until_serving("v1")
        load.wait_for_more(20)

    assert load.failed == []
    assert load.cut == 0
    rollouts = json.loads(house.cli("rollouts", "--json").stdout)
    assert [mark["weight_pct"] for mark in rollouts[-1]["marks"] if mark["what"] == "step"] == [20]


def test_a_config_with_mistakes_or_a_restart_changes_nothing(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    config = config_of(house)
    known = settings(house)
    file = house.folder / "next.yaml"

    broken = write(file, {**config, "replica": 3, "endpoints": {}})
    answer = house.cli("apply", str(broken))
    assert answer.returncode == 2
    assert 'unknown key "replica"' in answer.stderr
    assert "there is no endpoint" in answer.stderr

    shop = {**config["endpoints"]["shop"], "ttl": "5s"}
    bigger = write(file, {**config, "workers": 3, "endpoints": {"shop": shop}})
    plan = house.cli("plan", str(bigger))
    answer = house.cli("apply", str(bigger))
    assert (plan.returncode, answer.returncode) == (1, 1)
    assert "shop: ttl: 1s -> 5s." in plan.stdout
    assert "changes workers from 2 to 3, which needs a restart. Nothing is changed" in answer.stderr

    kill_controller(house)
    assert settings(house) == known
    assert list(endpoints(house)) == ["shop"]


def test_a_plan_changes_nothing(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    config = config_of(house)
    known = settings(house)
    blog = endpoint(config, host="blog.apps.test")

    file = write(house.folder / "next.yaml", {**config, "endpoints": {"blog": blog}})
    answer = house.cli("plan", str(file))

    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "blog: new; it starts when the registry has shown its image.",
        "shop: removed; its 2 groups drain first.",
    ]
    assert settings(house) == known
    assert list(endpoints(house)) == ["shop"]


def test_hangup_reads_the_file_again_and_survives_a_bad_one(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    config = config_of(house)
    assert house.process is not None

    write(house.config, {**config, "replica": 3})
    house.process.send_signal(signal.SIGHUP)
    wait_for("the refusal to be logged", lambda: "config_refused" in house.log())
    assert "unknown key" in house.log()
    kill_controller(house)
    assert settings(house)["ttl_s"] == 1, "a controller reads what was accepted, not the file"

    config["endpoints"]["shop"]["ttl"] = "7s"
    write(house.config, config)
    house.process.send_signal(signal.SIGHUP)
    wait_for("the new TTL", lambda: settings(house)["ttl_s"] == 7)


def test_what_was_applied_survives_a_kill_and_the_next_run_begins_with_its_file(
    house: Installation,
) -> None:
    house.start().wait_until_serving("v1")
    config = config_of(house)
    config["endpoints"]["shop"]["ttl"] = "7s"
    config["endpoints"]["shop"]["group"]["replicas"] = 3
    apply(house, config)

    kill_controller(house)
    assert settings(house)["ttl_s"] == 7
    wait_for("three groups", lambda: len(house.group_pids()) == 3)
    assert HOST in endpoints(house)["shop"]["hosts"]

    house.stop(groups=False)
    house.start()
    wait_for("the file's TTL", lambda: settings(house)["ttl_s"] == 1)
    house.wait_until_serving("v1")
