"""The whole service, as its users meet it: real processes, real kills, real clients."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.client_support import Load
from support.history_support import read_journal
from support.service_support import DEADLINE_S, HOST, Installation, installed, is_alive, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture
def house(tmp_path: Path, registry: str) -> Iterator[Installation]:
    with installed(tmp_path, registry) as installation:
        installation.push("v1")
        yield installation


BROKEN_OFF = "502: b'502 the group closed the connection before answering\\n'"
"""On a connection that is not reused it can't be sent again: promise 11."""


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(f"process {pid} to be gone", lambda: not is_alive(pid))


def test_killed_controller_costs_nothing_and_goes_on_where_it_was(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    with Load(house.ports["http"]) as load:
        for moment in ("before", "during"):
            (controller,) = house.children("controller")
            groups = house.group_pids()
            kill(controller["pid"])
            load.wait_for_more(50)
            if moment == "before":
                wait_for("a new controller", house.status)
                assert house.group_pids() == groups
                house.push("v2")
                wait_for("v2 to get traffic", lambda: house.get()[1] == "v2")
        house.wait_until_serving("v2")

    assert load.failed == []
    assert load.cut == 0


def test_killed_worker_costs_only_what_it_held(house: Installation) -> None:
    """Requests that wait in its slot's queue are served by its successor."""
    house.start().wait_until_serving("v1")
    workers = house.children("worker")

    os.kill(workers[0]["pid"], signal.SIGSTOP)  # so that some connections wait unserved
    waiting = [socket.create_connection(("127.0.0.1", house.ports["http"])) for _ in range(32)]
    for client in waiting:
        client.sendall(b"GET / HTTP/1.1\r\nHost: shop.apps.test\r\nConnection: close\r\n\r\n")
    kill(workers[0]["pid"])

    for client in waiting:
        client.settimeout(30)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.close()
    successor = wait_for(
        "a successor",
        lambda: [w for w in house.children("worker") if w["slot"] == workers[0]["slot"]],
    )
    assert successor[0]["pid"] != workers[0]["pid"]


def test_stop_leaves_the_groups_running_and_run_adopts_them(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    groups = house.group_pids()

    house.stop(groups=False)
    assert house.group_pids() == groups
    house.start().wait_until_serving("v1")

    assert house.group_pids() == groups
    house.stop(groups=True)
    assert house.pids() == []


def test_stopping_all_groups_survives_the_controller(house: Installation) -> None:
    """A controller that starts meanwhile must not deploy again what is being taken down."""
    house.start().wait_until_serving("v1")
    head = b"POST / HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nContent-Length: 4\r\n\r\nha"
    with (
        socket.create_connection(("127.0.0.1", house.ports["http"]), timeout=30) as slow,
        ThreadPoolExecutor() as pool,
    ):
        slow.sendall(head)
        stopping = pool.submit(house.stop, groups=True)
        wait_for("the groups to be withdrawn", lambda: "group_withdrawn" in house.log())
        (controller,) = house.children("controller")
        kill(controller["pid"])
        wait_for("a new controller", lambda: house.log().count("event=controller_started") == 2)
        slow.sendall(b"ha")

        stopping.result(DEADLINE_S)

    assert house.pids() == []


def test_killed_supervisor_is_succeeded_by_a_new_run(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    groups, workers = house.group_pids(), house.children("worker")
    assert house.process is not None
    kill_supervisor(house)
    assert all(is_alive(worker["pid"]) for worker in workers)
    assert house.get() == (200, "v1")

    house.start()
    wait_for("the former workers", lambda: not any(is_alive(w["pid"]) for w in workers))
    house.wait_until_serving("v1")  # by the new ones: what the former had not answered is reset

    assert house.group_pids() == groups


def kill_supervisor(house: Installation) -> None:
    assert house.process is not None
    house.process.kill()
    house.process.wait()
    house.process = None


def test_a_dead_group_is_replaced_and_costs_at_most_the_request_it_was_sent(
    house: Installation,
) -> None:
    house.start().wait_until_serving("v1")
    groups = house.group_pids()
    with Load(house.ports["http"]) as load:
        load.wait_for_more(20)
        kill(min(groups))
        load.wait_for_more(20)
        house.wait_until_serving("v1")

    assert load.cut == 0
    assert load.failed in ([], [BROKEN_OFF])
    assert len(house.group_pids() - groups) == 1


def test_an_operator_aborts_and_promotes(tmp_path: Path, registry: str) -> None:
    with installed(tmp_path, registry, hold="10m") as house:
        house.push("v1")
        house.start().wait_until_serving("v1")
        assert house.cli("abort", "shop").returncode == 1
        house.push("v2")
        wait_for("v2's first step", lambda: in_step(house))

        assert house.cli("abort", "shop").returncode == 0
        status = house.wait_until_serving("v1")
        assert "an operator asked for it" in status["quarantined"][0]["reason"]

        house.push("v4")
        wait_for("v4's first step", lambda: in_step(house))
        assert house.cli("promote", "shop").returncode == 0
        house.wait_until_serving("v4")
        outcomes = json.loads(house.cli("rollouts", "--json").stdout)
        assert [one["outcome"] for one in outcomes] == ["completed", "aborted", "completed"]


def in_step(house: Installation) -> bool:
    status = house.status()
    return bool(status and status["rollout"] and status["rollout"]["step"] > 0)


def test_direct_clients_get_group_addresses_that_outlive_their_ttl(
    tmp_path: Path, registry: str
) -> None:
    with installed(tmp_path, registry, publish="groups") as house:
        house.push("v1")
        house.start().wait_until_serving("v1")
        old = {address for _ in range(50) for address in house.addresses()}

        house.push("v2")
        seen: set[str] = set()
        while len(seen - old) < 2:
            (address,) = house.addresses()
            socket.create_connection((address, 8080), timeout=30).close()
            seen.add(address)
        house.wait_until_serving("v2")

        assert len(old) == 2
        assert set(house.addresses()) <= seen - old


def test_all_events_of_a_history_fold_to_the_stored_state(house: Installation) -> None:
    house.start().wait_until_serving("v1")
    house.push("v2")
    wait_for("v2 to get traffic", lambda: house.get()[1] == "v2")
    (controller,) = house.children("controller")
    kill(controller["pid"])
    wait_for("a new controller", house.status)
    house.wait_until_serving("v2")
    house.stop(groups=True)

    history = asyncio.run(read_journal(house.state_dir / "journal.db"))

    assert history.kept == history.folded
    assert not history.kept.endpoints
