"""The demo's parts, each by itself: settings, processes, the app, the load."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import yaml
from support.demo_support import NameServer, plan, scripted

from demo import processes
from demo.browser import Connection
from demo.judge import CAUGHT_BY
from demo.ledger import Batch, Ledger, from_line
from demo.revisions import Revisions
from demo.settings import QUICK_HOLDS, SOURCE, prepare
from demo.versions import FLAWED_PAGE, PAGES, image_of
from trafficmgr.config.load import load

TREE = Path(__file__).parent.parent.parent
APP = TREE / "demo" / "app" / "app.py"
WITHIN_S = 20.0


# -- settings -------------------------------------------------------------------------------------


def test_the_demos_file_is_valid_by_itself() -> None:
    assert set(load(SOURCE).endpoints) == {"shop", "api"}


def test_the_gates_that_must_catch_v4_are_in_the_demos_file() -> None:
    endpoints = load(SOURCE).endpoints
    gates = {name: endpoint.settings.gates for name, endpoint in endpoints.items()}

    assert all(gate in gates[name].names(100) for name, gate in CAUGHT_BY.items())
    (check,) = gates["api"].checks
    assert getattr(getattr(check.ask, "check", None), "path", None) == FLAWED_PAGE


def test_a_run_changes_only_places_and_holds(tmp_path: Path) -> None:
    original = yaml.safe_load(SOURCE.read_text("utf-8"))
    prepared = yaml.safe_load(prepare(tmp_path, quick=True).text)

    for config in (original, prepared):
        for key in ("state_dir", "listen", "address_pool"):
            del config[key]
        for endpoint in config["endpoints"].values():
            for container in endpoint["group"]["containers"]:
                container["image"] = "/".join(container["image"].split("/")[-2:])
            for step in endpoint["rollout"]["steps"]:
                step["hold"] = "any"

    assert prepared == original


def test_a_runs_file_is_valid_and_quick_has_shorter_holds(tmp_path: Path) -> None:
    for quick, holds in ((True, QUICK_HOLDS), (False, ("6s", "6s"))):
        file = tmp_path / "demo.yaml"
        file.write_text(prepare(tmp_path, quick=quick).text, "utf-8")

        steps = load(file).endpoints["shop"].settings.steps

        assert [f"{step.hold_s:g}s" for step in steps] == list(holds)


def test_revisions_are_known_by_whole_and_by_short_id(tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    file.write_text(prepare(tmp_path, quick=True).text, "utf-8")
    revisions = Revisions()
    revisions.learn("v1", image_of("v1").digest, file)
    revisions.learn("v2", image_of("v2").digest, file)

    (first, second) = revisions.known()

    assert revisions.version_of(first) == "v1"
    assert revisions.version_of(second[:8]) == "v2"
    assert revisions.version_of("0123456789ab") == "01234567"
    assert revisions.version_of(None) == ""


# -- processes ------------------------------------------------------------------------------------


async def test_a_grandchild_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    """As trafficmgr's groups are: no child of ours, in a session of its own."""
    child = "import subprocess as s, sys; s.Popen(['sleep', '60'], start_new_session=True)"
    parent = await processes.start([sys.executable, "-c", child], work=tmp_path, log="log")
    await parent.wait()

    assert [*processes.left_of(tmp_path).values()] == ["sleep 60"]

    await processes.end_all(tmp_path)
    assert processes.left_of(tmp_path) == {}


async def test_connections_of_a_process_are_counted() -> None:
    async with scripted() as server:
        clients = [await Connection.to("127.0.0.1", server.port) for _ in range(3)]
        for client in clients:
            await client.get(b"GET / HTTP/1.1\r\n\r\n")

        assert processes.connections_of(os.getpid(), server.port) == 3

        for client in clients:
            client.close()
            await client.wait_closed()


def test_children_are_none_while_the_record_is_away(tmp_path: Path) -> None:
    assert processes.children(tmp_path) == []


# -- the app --------------------------------------------------------------------------------------


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run the app as a container does, with a page that is broken; yield its process and port."""
    (tmp_path / "version").write_text("v7\n", "utf-8")
    (tmp_path / "flawed").write_text(f"{FLAWED_PAGE}\n", "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(APP)),
        cwd=tmp_path,
        env={"HOST": "127.0.0.1", "PORT": "0"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), WITHIN_S)
    yield process, int(line.split()[-1])
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.mark.processes
async def test_the_app_says_who_it_is_and_ends_in_order(
    app: tuple[asyncio.subprocess.Process, int],
) -> None:
    process, port = app
    connection = await Connection.to("127.0.0.1", port)

    answers = [await connection.get(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
    process.send_signal(signal.SIGTERM)

    assert {(a.version, a.group) for a in answers} == {("v7", "127.0.0.1")}
    assert await asyncio.wait_for(process.wait(), WITHIN_S) == 0
    await connection.wait_closed()


@pytest.mark.processes
async def test_a_flawed_app_is_healthy_and_fails_on_its_flawed_page_only(
    app: tuple[asyncio.subprocess.Process, int],
) -> None:
    connection = await Connection.to("127.0.0.1", app[1])

    answers = {
        page: await connection.get(f"GET {page} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        for page in ("/healthz", *PAGES)
    }
    connection.close()
    await connection.wait_closed()

    failing = {page: answer.version for page, answer in answers.items() if answer.status != 200}
    assert failing == {FLAWED_PAGE: "v7"}
    assert answers[FLAWED_PAGE].status == 500


def test_only_v4_is_flawed_and_only_v3_is_broken() -> None:
    files = {f"v{number}": image_of(f"v{number}").files for number in range(1, 7)}

    assert [version for version, names in files.items() if "app/broken" in names] == ["v3"]
    assert [version for version, names in files.items() if "app/flawed" in names] == ["v4"]


# -- the load process -----------------------------------------------------------------------------


@pytest.mark.processes
async def test_the_load_process_tells_all_and_leaves_when_its_input_ends(tmp_path: Path) -> None:
    async with (
        scripted() as web_server,
        scripted(address="127.0.0.2", port=web_server.port),
        NameServer.serving(lambda: ("127.0.0.2", 60)) as dns,
    ):
        wanted = plan(http=web_server.port, dns=dns.port, group_port=web_server.port)
        process = await processes.start(
            [sys.executable, "-m", "demo.load", msgspec.json.encode(wanted).decode()],
            work=tmp_path,
            log="load.log",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        ledger = Ledger()
        while min(ledger.clients().values()) < 5:
            ledger.add(from_line(await asyncio.wait_for(process.stdout.readline(), WITHIN_S)))
        process.stdin.close()
        async for line in process.stdout:
            ledger.add(from_line(line))

        assert await asyncio.wait_for(process.wait(), WITHIN_S) == 0

    assert ledger.is_complete
    assert (ledger.failures, ledger.cuts) == ([], [])
    assert {(r.kind, r.group) for r in ledger.responses} == {
        ("proxy", "127.0.0.1"),
        ("dns", "127.0.0.2"),
    }
    assert {name.address for name in ledger.names} == {"127.0.0.2"}


def test_a_batch_survives_its_line() -> None:
    assert from_line(msgspec.json.encode(Batch(is_last=True))).is_last
