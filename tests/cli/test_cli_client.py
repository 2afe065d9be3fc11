"""The client of the admin API when the other side is not as it should be."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from support.admin_support import STATUS, FakeHouse, service

from trafficmgr.admin.address import socket_path
from trafficmgr.cli import client as client_module
from trafficmgr.cli.client import Client
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import Place
from trafficmgr.cli.supervision import supervisor_of
from trafficmgr.controller.files import MAX_SOCKET_PATH_BYTES
from trafficmgr.supervisor.identity import identity_of

DEADLINE_S = 20


@contextmanager
def _answering(state_dir: Path, answer: bytes | None) -> Iterator[None]:
    """Take one request at the admin socket and answer with these bytes, or never (None)."""
    done = threading.Event()

    def answer_one() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            if answer is None:
                done.wait(DEADLINE_S)
            else:
                connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(state_dir)))
        listener.listen()
        thread = threading.Thread(target=answer_one)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(DEADLINE_S)


def _record_supervisor(state_dir: Path, pid: int) -> None:
    identity = identity_of(pid)
    assert identity is not None
    (state_dir / "supervisor.lock").write_text(json.dumps(asdict(identity)))


def test_a_state_dir_too_long_for_af_unix_is_reached(tmp_path: Path) -> None:
    state_dir = tmp_path / ("long" * 20) / ("longer" * 10)
    assert len(str(socket_path(state_dir))) > MAX_SOCKET_PATH_BYTES

    with service(FakeHouse(), state_dir):
        assert Client(Place(state_dir)).get("/v1/status") == STATUS


@pytest.mark.parametrize("left_behind", ["nothing", "folder", "socket", "lock"])
def test_nobody_there_is_not_running(tmp_path: Path, left_behind: str) -> None:
    state_dir = tmp_path / "state"
    if left_behind != "nothing":
        state_dir.mkdir()
    if left_behind == "socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(socket_path(state_dir)))
    if left_behind == "lock":
        ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        _record_supervisor(state_dir, ended.pid)
        ended.communicate()

    with pytest.raises(CliError, match="is not running on") as caught:
        Client(Place(state_dir)).get("/v1/status")

    assert caught.value.code is ExitCode.not_running


def test_a_pid_that_somebody_else_has_now_is_no_supervisor(tmp_path: Path) -> None:
    identity = identity_of(os.getpid())
    assert identity is not None
    former = {**asdict(identity), "starttime": identity.starttime - 1}
    (tmp_path / "supervisor.lock").write_text(json.dumps(former))

    assert supervisor_of(tmp_path) is None
    _record_supervisor(tmp_path, os.getpid())
    assert supervisor_of(tmp_path) == identity


def test_a_supervisor_that_ended_but_was_not_reaped_is_gone(tmp_path: Path) -> None:
    """Its parent may be a script that waits for `trafficmgr stop` first."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _record_supervisor(tmp_path, ended.pid)
    assert supervisor_of(tmp_path) is not None

    assert ended.stdin is not None
    ended.stdin.close()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)

    assert supervisor_of(tmp_path) is None
    ended.wait(DEADLINE_S)


def test_a_controller_that_is_being_restarted_is_waited_for(tmp_path: Path) -> None:
    _record_supervisor(tmp_path, os.getpid())
    answers: list[object] = []
    asking = threading.Thread(
        target=lambda: answers.append(Client(Place(tmp_path)).get("/v1/status"))
    )
    asking.start()

    with service(FakeHouse(), tmp_path):
        asking.join(DEADLINE_S)

    assert answers == [STATUS]


def test_a_controller_that_does_not_come_back_is_not_called_not_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RESTART_S", 0.2)
    _record_supervisor(tmp_path, os.getpid())

    with pytest.raises(CliError, match="its controller does not answer") as caught:
        Client(Place(tmp_path)).get("/v1/status")

    assert caught.value.code is ExitCode.refused


def test_no_answer_in_time_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_S", 0.2)

    with (
        _answering(tmp_path, None),
        pytest.raises(CliError, match=r"did not answer within 0\.2s"),
    ):
        Client(Place(tmp_path)).get("/v1/status")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "broke off its answer"),
        (b"SSH-2.0-OpenSSH\r\n", "broke off its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "broke off its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", "something that is not JSON"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "answered with 500 Oops: oops"),
        (b'HTTP/1.1 400 No\r\nContent-Length: 4\r\n\r\n"no"', 'answered with 400 No: "no"'),
    ],
)
def test_garbage_is_an_error_with_a_sentence(tmp_path: Path, answer: bytes, sentence: str) -> None:
    with _answering(tmp_path, answer), pytest.raises(CliError, match=sentence):
        Client(Place(tmp_path)).get("/v1/status")
