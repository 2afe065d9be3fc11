"""The jobs example, program by program: what is kept, who works on it, how each ends."""

import concurrent.futures
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.service_support import wait_for

from demo.jobs.images import PROGRAMS, image_of
from demo.jobs.service import Notebook, Request
from demo.jobs.store import DONE, TAKEN, WAITING, Store
from demo.jobs.worker import Worker, factors

PORTS = {"logs": 8080, "web": 8081, "worker": 8000}
"""Of a group here; the web front is on 80 where it may, see jobs.yaml."""

_numbers = itertools.count(os.getpid())

LARGE = 999_999_999_989
"""A prime: the longest that a number of its size can take."""


# -- what is kept ---------------------------------------------------------------------------------


def test_a_job_waits_is_taken_and_done(tmp_path: Path) -> None:
    store = Store(tmp_path)

    job = store.accept({"number": 91})
    states = [(store.look_up(job) or {})["state"]]
    task = store.claim() or {}
    states.append((store.look_up(job) or {})["state"])
    store.finish({**task, "factors": [7, 13]})

    assert states == [WAITING, TAKEN]
    assert store.look_up(job) == {"id": job, "number": 91, "factors": [7, 13], "state": DONE}
    assert store.claim() is None


def test_the_oldest_job_is_first_and_each_has_one_taker(tmp_path: Path) -> None:
    jobs = [Store(tmp_path).accept({"number": n}) for n in range(2, 102)]

    def take_all(store: Store) -> list[str]:
        taken = []
        while (task := store.claim()) is not None:
            taken.append(task["id"])
        return taken

    first = Store(tmp_path).claim()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        taken = [*pool.map(take_all, (Store(tmp_path) for _ in range(8)))]

    assert first == {"id": jobs[0], "number": 2}
    assert sorted(job for one in taken for job in one) == sorted(jobs[1:])


def test_a_job_whose_taker_is_gone_goes_to_another(tmp_path: Path) -> None:
    patient, hasty = Store(tmp_path, lease_s=3600), Store(tmp_path, lease_s=-1)
    job = patient.accept({"number": 91})
    task = patient.claim() or {}

    patient.tidy()
    assert patient.claim() is None
    hasty.tidy()
    assert (patient.claim() or {})["id"] == job

    patient.finish(task)  # the one who was thought to be gone
    hasty.tidy()
    assert patient.claim() is None
    assert (patient.look_up(job) or {})["state"] == DONE


def test_old_results_are_forgotten_and_strange_ids_are_nobodys(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs", keep_s=-1)
    (tmp_path / "secret").write_text("{}")
    job = store.accept({"number": 91})
    store.finish(store.claim() or {})

    store.tidy()

    assert store.look_up(job) is None
    assert store.look_up("../../secret") is None


@pytest.mark.parametrize(
    ("number", "expected"), [(2, [2]), (91, [7, 13]), (2**10 * 3, [2] * 10 + [3]), (97, [97])]
)
def test_a_number_is_taken_apart(number: int, expected: list[int]) -> None:
    assert factors(number) == expected


# -- the three as processes -----------------------------------------------------------------------


class Members:
    """The containers of a group, as process mode runs them: one address, three processes."""

    def __init__(self, folder: Path, jobs: Path) -> None:
        self.address = f"127.{200 + os.getpid() % 50}.{next(_numbers) % 250}.1"
        self._folder = folder
        self._jobs = jobs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *programs: str) -> None:
        """Start programs out of their images, and wait until they listen."""
        for name in programs:
            tree = self._folder / name
            for path, content in image_of(name, "v7").files.items():
                assert isinstance(content, bytes)
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(content)
            self.processes[name] = self._process(name, tree / "app")
        wait_for("all to listen", lambda: all(self._is_open(PORTS[name]) for name in programs))

    def _process(self, name: str, cwd: Path) -> "subprocess.Popen[bytes]":
        command = image_of(name, "v7").config["Cmd"]
        places = {"HOST": self.address, "LOCALHOST": self.address, "PORT": str(PORTS[name])}
        volumes = {"VOLUME_JOBS": str(self._jobs), "VOLUME_LOG": str(self._folder)}
        return subprocess.Popen(
            [sys.executable, *command[1:]],
            cwd=cwd,
            env={"PATH": os.defpath, **places, **volumes, "LEASE_S": "1"},
            stdout=subprocess.DEVNULL,
        )

    def _is_open(self, port: int) -> bool:
        with socket.socket() as peer:
            return peer.connect_ex((self.address, port)) == 0

    def ask(self, program: str, path: str, body: Any = None) -> Any:
        """GET, or POST a body; return the answer."""
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self.address}:{PORTS[program]}{path}"
        with urllib.request.urlopen(url, data, timeout=30) as response:
            content = response.read()
            is_json = response.headers["Content-Type"] == "application/json"
            return json.loads(content) if is_json else content.decode()

    def result_of(self, job: str) -> dict[str, Any]:
        """Wait until a job is done; return it."""

        def done() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask("web", f"/jobs/{job}")
            return found if found["state"] == DONE else None

        answer: dict[str, Any] = wait_for(f"job {job} to be done", done)
        return answer

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """End one and return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(30)


@contextmanager
def members(folder: Path, jobs: Path, *programs: str) -> Iterator[Members]:
    """Run the programs of a group."""
    group = Members(folder, jobs)
    try:
        group.start(*programs)
        yield group
    finally:
        for process in group.processes.values():
            process.kill()
            process.wait()


@pytest.mark.processes
def test_three_members_do_a_job_and_end_in_order(tmp_path: Path) -> None:
    with members(tmp_path / "a", tmp_path / "jobs", *PROGRAMS) as group:
        job = group.ask("web", "/jobs", {"number": LARGE})["id"]

        assert group.result_of(job)["factors"] == [LARGE]
        assert "<form>" in group.ask("web", "/")
        wait_for("the log", lambda: f"finished job {job}" in group.ask("web", "/logs"))
        lines = group.ask("logs", "/api/logs").splitlines()
        assert f"web v7: accepted job {job}" in lines
        assert f"worker v7: finished job {job}: [{LARGE}]" in lines

        assert group.ask("worker", "/drain") == "drained\n"
        assert [group.stop(name) for name in ("worker", "web", "logs")] == [0, 0, 0]


@pytest.mark.processes
def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    with members(tmp_path / "a", tmp_path / "jobs", "web") as group:
        bodies: tuple[Any, ...] = (
            {"number": "91"},
            {"number": 1},
            {"number": True},
            {},
            [],
            10**13,
        )
        for body in bodies:
            with pytest.raises(urllib.error.HTTPError, match="400"):
                group.ask("web", "/jobs", body)

        with pytest.raises(urllib.error.HTTPError, match="404"):
            group.ask("web", f"/jobs/{'0' * 24}")
        assert Store(tmp_path / "jobs").counts() == {WAITING: 0, TAKEN: 0, DONE: 0}


@pytest.mark.processes
def test_another_group_finishes_what_a_group_has_left(tmp_path: Path) -> None:
    """The first has no processor at all, and is killed with all that it has taken."""
    with members(tmp_path / "a", tmp_path / "jobs", "web") as first:
        jobs = [first.ask("web", "/jobs", {"number": 91})["id"] for _ in range(3)]
        first.stop("web", signal.SIGKILL)

        with members(tmp_path / "b", tmp_path / "jobs", "web", "worker") as second:
            assert [second.result_of(job)["factors"] for job in jobs] == [[7, 13]] * 3


class NoNotebook(Notebook):
    """Writes nothing."""

    def __init__(self) -> None:
        pass

    def write(self, line: str) -> None:
        pass


def test_a_processor_that_drains_finishes_what_is_in_hand_and_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end, order = threading.Event(), threading.Event(), []
    worker = Worker(NoNotebook(), "v7")

    def slow(number: int) -> list[int]:
        begun.set()
        assert may_end.wait(30)
        order.append("work")
        return [number]

    def ask(method: str, path: str) -> int:
        status = worker.answer(Request(method, path, b'{"id": "1", "number": 7}')).status
        order.append(path)
        return status

    monkeypatch.setattr("demo.jobs.worker.factors", slow)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        work = pool.submit(ask, "POST", "/work")
        assert begun.wait(30)
        drain = pool.submit(ask, "GET", "/drain")
        wait_for("it to drain", lambda: worker._is_draining)
        assert worker.answer(Request("POST", "/work", b"")).status == 503
        may_end.set()

        assert (work.result(30), drain.result(30)) == (200, 200)
    assert order[0] == "work"
