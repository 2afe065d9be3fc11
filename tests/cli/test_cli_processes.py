"""The command line as a user meets it: processes, exit codes, terminals, Ctrl-C."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from support.admin_support import FakeHouse, service
from support.cli_support import ARGV, DEADLINE_S, broken_config, environment, process

from trafficmgr.supervisor.identity import identity_of

pytestmark = pytest.mark.processes


def test_not_running_is_exit_3_and_says_how_to_start_it(tmp_path: Path) -> None:
    result = process("status", "--state-dir", tmp_path)

    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == (
        f"trafficmgr is not running on {tmp_path}; start it with `trafficmgr run -c FILE`\n"
    )


@pytest.mark.parametrize("verb", [("validate",), ("run", "-c")])
def test_a_config_with_three_mistakes_shows_all_three_and_exits_2(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    (tmp_path / "shop.yaml").write_text(broken_config())

    result = process(*verb, "shop.yaml", cwd=tmp_path)

    assert (result.returncode, result.stdout) == (2, "")
    places = [line for line in result.stderr.splitlines() if line.startswith("shop.yaml:")]
    assert [place.split(":")[1] for place in places] == ["4", "11", "13"], result.stderr
    assert 'did you mean "replicas"?' in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "shop.yaml"], "something was begun"


def test_a_quick_answer_does_not_import_what_is_slow() -> None:
    """Start-up is felt at every call; these cost 40 to 200 ms each."""
    probe = (
        "import sys, trafficmgr.cli.main; "
        "print([m for m in ('aiohttp', 'pydantic', 'asyncio', 'yaml') if m in sys.modules])"
    )

    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=environment()
    )

    assert result.stdout == "[]\n"


# -- terminals ------------------------------------------------------------------------------------


@contextmanager
def _on_a_terminal(*arguments: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a verb on a terminal; yield the process and the terminal's other end."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*ARGV, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(), "TERM": "xterm", "COLUMNS": "140"},
    )
    os.close(theirs)
    try:
        yield running, ours
    finally:
        running.kill()
        running.wait(DEADLINE_S)
        os.close(ours)


def _read_until(terminal: int, text: bytes, times: int) -> bytes:
    """Read until a text was seen so often; the test's own deadline ends it otherwise."""
    seen = b""
    while seen.count(text) < times:
        seen += os.read(terminal, 65536)
    return seen


def test_watching_renews_the_picture_and_leaves_on_ctrl_c(tmp_path: Path) -> None:
    with (
        service(FakeHouse(), tmp_path),
        _on_a_terminal("status", "--watch", "--state-dir", tmp_path) as (running, terminal),
    ):
        seen = _read_until(terminal, b"shop.apps.test", times=3)
        running.send_signal(signal.SIGINT)
        drain = threading.Thread(target=_drain, args=(terminal,))
        drain.start()
        code = running.wait(DEADLINE_S)
        drain.join(DEADLINE_S)

    assert code == 0
    assert b"\x1b[" in seen, "no colours on a terminal"


def test_watching_outlasts_a_service_that_goes_away(tmp_path: Path) -> None:
    with _on_a_terminal_while_served(tmp_path) as terminal:
        _read_until(terminal, b"shop.apps.test", times=1)
    # the service has ended, the watcher is still there


@contextmanager
def _on_a_terminal_while_served(state_dir: Path) -> Iterator[int]:
    serving = service(FakeHouse(), state_dir)
    serving.__enter__()
    with _on_a_terminal("status", "--watch", "--state-dir", state_dir) as (_, terminal):
        yield terminal
        serving.__exit__(None, None, None)
        _read_until(terminal, b"is not running on", times=1)
        with service(FakeHouse(), state_dir):
            _read_until(terminal, b"shop.apps.test", times=1)


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # the process has closed its end
        pass


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (("events", "--follow", "--json"), '"seq": 1'),
        (("events", "-f"), "GroupReady"),
        (("logs", "shop-7", "--follow"), "first"),
        (("logs", "shop-7", "-f", "--json"), '"first"'),
    ],
)
def test_following_prints_at_once_and_leaves_on_ctrl_c(
    tmp_path: Path, arguments: tuple[str, ...], first: str
) -> None:
    house = FakeHouse()
    house.observe("GroupReady")
    with (
        service(house, tmp_path),
        subprocess.Popen(
            [*ARGV, *arguments, "--state-dir", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as running,
    ):
        assert running.stdout is not None
        assert running.stderr is not None
        line = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        assert running.wait(DEADLINE_S) == 0, running.stderr.read()

    assert first in line


def test_stop_returns_when_the_supervisor_has_ended(tmp_path: Path) -> None:
    """So that `trafficmgr stop && trafficmgr run` works."""
    house = FakeHouse()
    with (
        service(house, tmp_path),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as supervisor,
    ):
        identity = identity_of(supervisor.pid)
        assert identity is not None
        (tmp_path / "supervisor.lock").write_text(json.dumps(asdict(identity)))
        stopping = subprocess.Popen(
            [*ARGV, "stop", "--state-dir", str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with stopping:
            assert stopping.stdout is not None
            assert stopping.stdout.readline() == "The service ends; the groups run on.\n"
            assert stopping.poll() is None, "it did not wait"
            supervisor.communicate(b"\n", DEADLINE_S)
            assert stopping.wait(DEADLINE_S) == 0
