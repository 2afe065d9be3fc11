"""`trafficmgr exec` as a user meets it: exit codes, standard streams, and the terminal afterwards.

The service is the real API; the command runs beside it instead of in a container.
"""

import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.admin_support import FakeHouse, service
from support.cli_support import ARGV, DEADLINE_S, environment, process

pytestmark = pytest.mark.processes


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
def state_dir(house: FakeHouse, tmp_path: Path) -> Iterator[Path]:
    with service(house, tmp_path):
        yield tmp_path


def run(
    state_dir: Path, *words: str, stdin: bytes = b"", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run `exec` with standard input from a pipe."""
    place = ("--state-dir", str(state_dir))
    return subprocess.run(
        [*ARGV, "exec", "shop-7", *place, *options, "--", *words],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
        env=environment(),
    )


@contextmanager
def on_a_terminal(state_dir: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `exec` on a terminal of 30 lines; yield the process and the terminal's other end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    running = subprocess.Popen(
        [*ARGV, "exec", "shop-7", "--state-dir", str(state_dir), *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**environment(), "TERM": "xterm"},
    )
    try:
        yield running, ours
        assert_is_given_back(theirs)
    finally:
        running.kill()
        running.wait(DEADLINE_S)
        os.close(theirs)
        os.close(ours)


def assert_is_given_back(terminal: int) -> None:
    flags = termios.tcgetattr(terminal)[3]
    assert flags & termios.ECHO
    assert flags & termios.ICANON


def read_until(terminal: int, text: bytes) -> bytes:
    """Read until a text was seen; the test's own deadline ends it otherwise."""
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 65536)
    return seen


# -- without a terminal ---------------------------------------------------------------------------


def test_the_exit_code_is_the_commands_and_streams_stay_apart(state_dir: Path) -> None:
    done = run(state_dir, "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_command_that_was_killed_ends_with_128_and_the_signal(state_dir: Path) -> None:
    assert run(state_dir, "sh", "-c", "kill -TERM $$").returncode == 143


def test_arguments_arrive_as_they_are(state_dir: Path) -> None:
    done = run(state_dir, "printf", "%s|", "a b", "", "-c", "--tty", "$HOME", "é")

    assert done.stdout.decode() == "a b||-c|--tty|$HOME|é|"


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_standard_input_is_passed_on_to_its_end(state_dir: Path, size: int) -> None:
    data = os.urandom(size)

    done = run(state_dir, "cat", stdin=data)

    assert done.returncode == 0
    assert done.stdout == data


def test_a_command_that_leaves_its_input_alone_ends_all_the_same(state_dir: Path) -> None:
    done = run(state_dir, "sh", "-c", "exit 3", stdin=bytes(5_000_000))

    assert (done.returncode, done.stderr) == (3, b"")


def test_a_file_is_standard_input_too(state_dir: Path, tmp_path: Path) -> None:
    """Not every way to wait for input works with plain files."""
    (tmp_path / "in").write_text("text of a file")
    with (tmp_path / "in").open() as file:
        done = subprocess.run(
            [*ARGV, "exec", "shop-7", "--state-dir", str(state_dir), "--", "cat"],
            stdin=file,
            capture_output=True,
            check=False,
            timeout=DEADLINE_S,
            env=environment(),
        )

    assert done.stdout == b"text of a file"


@pytest.mark.parametrize(
    ("options", "words", "sentence"),
    [
        ((), ("/no/such/program",), "There is no program '/no/such/program'."),
        (("-c", "nobody"), ("true",), 'Group shop-7 has no container "nobody".'),
    ],
)
def test_what_cannot_be_run_is_a_sentence_and_125(
    state_dir: Path, options: tuple[str, ...], words: tuple[str, ...], sentence: str
) -> None:
    done = run(state_dir, *words, options=options)

    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.decode() == f"{sentence}\n"


def test_a_service_that_is_not_there_is_3_as_for_every_verb(tmp_path: Path) -> None:
    assert process("exec", "shop-7", "--state-dir", tmp_path, "--", "true").returncode == 3


def test_a_service_that_goes_away_is_said(house: FakeHouse, tmp_path: Path) -> None:
    with service(house, tmp_path):
        running = subprocess.Popen(
            [*ARGV, "exec", "shop-7", "--state-dir", str(tmp_path), "--", "sh", "-c",
             "echo here; sleep 600"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == b"here\n"

    _, errors = running.communicate(timeout=DEADLINE_S)

    assert running.returncode == 125
    assert b"The service stops" in errors


def test_a_reader_that_has_enough_ends_it_without_a_word(state_dir: Path) -> None:
    with subprocess.Popen(
        [*ARGV, "exec", "shop-7", "--state-dir", str(state_dir), "--", "yes"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()

        assert running.wait(DEADLINE_S) == 141
        assert running.stderr.read() == b""


def test_ctrl_c_ends_the_command_as_well(state_dir: Path, house: FakeHouse) -> None:
    with subprocess.Popen(
        [*ARGV, "exec", "shop-7", "--state-dir", str(state_dir), "--", "sh", "-c",
         "echo here; sleep 600"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == b"here\n"
        running.send_signal(signal.SIGINT)

        assert running.wait(DEADLINE_S) == 130
    (session,) = house.groups.sessions
    wait_for(lambda: session.is_closed)


def wait_for(is_so: object) -> None:
    assert callable(is_so)
    give_up_at = time.monotonic() + DEADLINE_S
    while not is_so() and time.monotonic() < give_up_at:
        time.sleep(0.01)
    assert is_so()


# -- with a terminal ------------------------------------------------------------------------------


def test_a_terminal_gets_every_key_and_each_new_size(state_dir: Path) -> None:
    until = "until [ '{}' = \"$(stty size)\" ]; do sleep 0.05; done; echo {};"
    script = until.format("30 100", "sized") + until.format("50 120", "resized")
    script += "read a; echo got $a; exit 5"
    with on_a_terminal(state_dir, "-t", "--", "sh", "-c", script) as (running, terminal):
        read_until(terminal, b"sized")
        termios.tcsetwinsize(terminal, (50, 120))
        # the kernel tells only the jobs of the controlling terminal, which this one is not
        running.send_signal(signal.SIGWINCH)
        read_until(terminal, b"resized")
        os.write(terminal, b"word\r")
        read_until(terminal, b"got word")

        assert running.wait(DEADLINE_S) == 5


def test_ctrl_c_on_a_terminal_is_a_key_for_the_command(state_dir: Path) -> None:
    script = "trap 'echo interrupted; exit 9' INT; echo here; sleep 600 & wait"
    words = ("--tty", "--", "sh", "-c", script)
    with on_a_terminal(state_dir, *words) as (running, terminal):
        read_until(terminal, b"here")
        os.write(terminal, b"\x03")
        read_until(terminal, b"interrupted")

        assert running.wait(DEADLINE_S) == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(state_dir: Path, number: int) -> None:
    words = ("-t", "--", "sh", "-c", "echo here; sleep 600")
    with on_a_terminal(state_dir, *words) as (running, terminal):
        read_until(terminal, b"here")
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO, "it was not raw"
        running.send_signal(number)

        assert running.wait(DEADLINE_S) == 128 + number


def test_without_t_a_terminal_is_not_read(state_dir: Path) -> None:
    """A script's loop over lines must not lose them to a command that it runs."""
    with on_a_terminal(state_dir, "--", "cat") as (running, _):
        assert running.wait(DEADLINE_S) == 0
