"""The shim alone: locks, files, signals, orphans, full disks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runtime_support import DEADLINE_S

from trafficmgr.runtimes.embedded import identity, shim, shimapp
from trafficmgr.runtimes.embedded.identity import ProcessId
from trafficmgr.runtimes.embedded.loglines import STAMP_LENGTH, stamp_of
from trafficmgr.runtimes.embedded.shimlog import PIECE_BYTES

pytestmark = pytest.mark.processes


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


class Container:
    """A folder with a spec, and the shim that may run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, script: str, **changes: Any) -> None:
        spec = {
            "path": "/bin/sh",
            "argv": ["sh", "-c", script],
            "env": {"PATH": os.defpath},
            "cwd": str(self.folder),
            "grace_s": 5.0,
            "stop_signal": int(signal.SIGTERM),
            "log_bytes": 1_000_000,
        }
        (self.folder / "spec.json").write_text(json.dumps(spec | changes))

    def start(self, stdin: bytes = b"") -> str:
        """Start a shim; return what it said when the start was decided."""
        return subprocess.run(
            [sys.executable, "-I", "-S", shim.__file__, str(self.folder)],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=None,
            check=True,
            start_new_session=True,
            timeout=DEADLINE_S,
        ).stdout.decode()

    def run(self, script: str, **changes: Any) -> dict[str, Any]:
        """Run the script from start to end; return exit.json."""
        self.write(script, **changes)
        self.start()
        return self.exit()

    def exit(self) -> dict[str, Any]:
        wait_until((self.folder / "exit.json").exists)
        if (self.folder / "identity.json").exists():
            wait_until(lambda: not identity.is_alive(self.process("shim")))
        return self.json("exit.json")

    def json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text())
        return content

    def process(self, which: str) -> ProcessId:
        return ProcessId(**self.json("identity.json")[which])

    def records(self, name: str = "log") -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def log(self, name: str = "log") -> str:
        """Return what was written, without times."""
        return "".join(f"{record[STAMP_LENGTH + 1 :]}\n" for record in self.records(name))

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self.log())

    def stop(self) -> None:
        assert identity.send(self.process("shim"), signal.SIGTERM)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    if (tmp_path / "identity.json").exists():
        for which in ("app", "shim"):
            identity.send_group(container.process(which), signal.SIGKILL)
            identity.send(container.process(which), signal.SIGKILL)


def test_exit_code_and_output_are_recorded(container: Container) -> None:
    record = container.run("echo out; echo err >&2; exit 3")

    assert (record["code"], record["signal"], record["dropped_bytes"]) == (3, None, 0)
    assert container.log() == "out\nerr\n"


def test_death_by_signal_is_recorded(container: Container) -> None:
    record = container.run("kill -9 $$")

    assert (record["code"], record["signal"]) == (None, signal.SIGKILL)


def test_output_of_an_application_that_ends_at_once_is_whole(container: Container) -> None:
    container.run("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")

    assert container.log().splitlines() == [f"line {i}" for i in range(20000)]


def test_failed_exec_is_recorded(container: Container) -> None:
    container.write("", path="/no/such/program")

    said = container.start()

    assert said == ""
    assert container.exit()["error"] == "No such file or directory"
    assert not (container.folder / "identity.json").exists()


def test_missing_working_directory_is_recorded(container: Container) -> None:
    assert "No such file" in container.run("echo", cwd="/no/such/folder")["error"]


def test_shim_and_application_are_on_their_own(container: Container) -> None:
    """Nobody's session, nobody's group, nobody's child: nothing of ours can reach them."""
    container.write("echo up; sleep 1000")
    container.start()
    container.wait_for_log("up")

    shim_pid, app_pid = container.process("shim").pid, container.process("app").pid
    assert os.getsid(shim_pid) == os.getpgid(shim_pid) == shim_pid
    assert os.getpgid(app_pid) == app_pid
    assert os.getsid(app_pid) == shim_pid
    assert shimapp.stat_fields(shim_pid)[1] != str(os.getpid()).encode()
    assert container.json("identity.json")["boot_id"] == identity.boot_id()


def test_application_gets_the_signals_and_files_of_a_fresh_process(container: Container) -> None:
    container.run("ls -l /proc/self/fd; grep Sig[IC] /proc/self/status; umask")

    log = container.log()
    assert "0 -> /dev/null" in log
    assert str(container.folder / "lock") not in log
    assert [line.split()[1] for line in log.splitlines() if line.startswith("SigIgn")] == ["0" * 16]
    assert log.splitlines()[-1] == "0022"


def test_second_start_while_it_runs_is_a_no_op(container: Container) -> None:
    container.write("echo started; sleep 1000")
    container.start()
    first = container.json("identity.json")

    said = container.start()

    assert said == shim.BUSY.decode()
    assert container.json("identity.json") == first
    container.wait_for_log("started")
    assert container.log() == "started\n"


def test_second_start_after_the_end_is_a_no_op(container: Container) -> None:
    container.run("echo started; exit 3")

    said = container.start()

    assert said == ""
    assert container.log() == "started\n"


def test_many_starts_at_once_give_one_application(container: Container) -> None:
    container.write("echo started; sleep 1000")
    command = [sys.executable, "-I", "-S", shim.__file__, str(container.folder)]

    starters = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(6)]
    said = [starter.communicate(timeout=DEADLINE_S)[0] for starter in starters]

    assert sorted(said) == [b""] + [shim.BUSY] * 5
    container.wait_for_log("started")
    assert container.log() == "started\n"


def test_stop_sends_the_images_signal_to_the_whole_group(container: Container) -> None:
    script = (
        'trap "echo parent got it; exit 0" USR1; '
        'sh -c \'trap "echo child got it; exit 0" USR1; echo ready; '
        "while :; do sleep 0.05; done' & while :; do wait; done"
    )
    container.write(script, stop_signal=int(signal.SIGUSR1))
    container.start()
    container.wait_for_log("ready")

    container.stop()

    assert container.exit()["code"] == 0
    assert "parent got it" in container.log()
    assert "child got it" in container.log()


def test_server_behind_a_dead_shell_has_its_grace(container: Container) -> None:
    """`sh -c "server"` dies of SIGTERM at once; the server's orderly end must not be cut short."""
    script = (
        'sh -c \'trap "sleep 0.3; echo drained; exit 0" TERM; echo ready; '
        "while :; do sleep 0.05; done' & wait"
    )
    container.write(script, grace_s=DEADLINE_S)
    container.start()
    container.wait_for_log("ready")

    container.stop()

    assert container.exit()["signal"] == signal.SIGTERM
    assert container.log().endswith("drained\n")


def test_application_that_ignores_sigterm_is_killed_after_its_grace(container: Container) -> None:
    container.write('trap "" TERM; echo ready; while :; do sleep 0.05; done', grace_s=0.2)
    container.start()
    container.wait_for_log("ready")

    container.stop()

    assert container.exit()["signal"] == signal.SIGKILL


def test_what_the_application_leaves_behind_is_killed(container: Container) -> None:
    """A child in its group, and a daemon in a session of its own whose parent is gone."""
    script = (
        "sleep 1001 & echo pid $!; "
        "setsid sh -c 'sleep 1002 & echo pid $!' & wait $!; "
        "setsid sh -c 'trap \"\" TERM; sleep 1003 & echo pid $!; wait' & "
        "while [ $(grep -c pid log) -lt 3 ]; do sleep 0.02; done; exit 0"
    )
    container.write(script)
    container.start()

    assert container.exit()["code"] == 0
    pids = [int(line.split()[1]) for line in container.log().splitlines()]
    assert len(pids) == 3
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_log_is_rotated_between_lines(container: Container) -> None:
    """Between two writes of the shim, that is: it is waited for in the middle."""
    count = "while [ $i -lt {} ]; do echo line $i; i=$((i+1)); done"
    written = "until [ -s log ]; do sleep 0.01; done"
    container.run(f"i=0; {count.format(1500)}; {written}; {count.format(3000)}", log_bytes=10_000)

    old, new = (container.log(name) for name in ("log.1", "log"))
    kept = (old + new).splitlines()
    assert kept == [f"line {i}" for i in range(3000 - len(kept), 3000)]
    assert old.endswith("\n")
    assert (container.folder / "log.1").stat().st_size < 10_000 + 4 * shimapp.CHUNK_BYTES


def test_endless_line_does_not_fill_the_disk(container: Container) -> None:
    container.run("head -c 500000 /dev/zero", log_bytes=10_000)

    sizes = [(container.folder / name).stat().st_size for name in ("log.1", "log")]
    assert max(sizes) <= 20_000 + shimapp.CHUNK_BYTES


def test_full_disk_costs_only_log_lines(container: Container) -> None:
    (container.folder / "log").symlink_to("/dev/full")

    record = container.run("echo lost; echo lost; exit 4")

    assert (record["code"], record["dropped_bytes"]) == (4, 10)


def test_application_that_closes_its_output_runs_on(container: Container) -> None:
    record = container.run("exec >&- 2>&-; sleep 0.2; exit 6")

    assert record["code"] == 6


def test_identity_that_cannot_be_written_leaves_no_application(container: Container) -> None:
    (container.folder / "identity.json.new").mkdir()
    seconds = f"1000.{time.monotonic_ns()}"  # tells it from all other sleepers
    container.write(f"sleep {seconds}")

    subprocess.run(
        [sys.executable, "-I", "-S", shim.__file__, str(container.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE_S,
    )

    assert not [line for line in _command_lines() if seconds in line]


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue  # it has ended


def test_folder_without_a_spec_starts_nothing(container: Container) -> None:
    assert container.start() == ""
    assert not (container.folder / "identity.json").exists()


# -- times, pieces, secrets, users, control groups ------------------------------------------------


def test_each_line_has_its_time(container: Container) -> None:
    before = stamp_of(time.clock_gettime(time.CLOCK_REALTIME)).decode()

    container.run("echo one; sleep 0.05; echo two")

    times = [record[:STAMP_LENGTH] for record in container.records()]
    assert len(times) == 2
    assert before <= times[0] < times[1]
    assert times[1] <= stamp_of(time.clock_gettime(time.CLOCK_REALTIME)).decode()


def test_line_that_does_not_end_is_cut_in_pieces(container: Container) -> None:
    container.run(f"head -c {3 * PIECE_BYTES + 5} /dev/zero | tr '\\0' x; echo end; echo next")

    records = container.records()
    marks = [record[STAMP_LENGTH] for record in records]
    assert (marks[-1], records[-1][STAMP_LENGTH + 1 :]) == (" ", "next")
    assert marks[-2] == " "
    assert (
        "".join(r[STAMP_LENGTH + 1 :] for r in records[:-1]) == "x" * (3 * PIECE_BYTES + 5) + "end"
    )
    assert max(map(len, records)) < shimapp.CHUNK_BYTES + 2 * PIECE_BYTES


def test_last_line_without_an_end_is_kept_as_a_piece(container: Container) -> None:
    container.run("printf 'a\\nb'")

    assert [record[STAMP_LENGTH:] for record in container.records()] == [" a", "+b"]


def test_secrets_come_through_a_pipe_and_are_not_written_down(container: Container) -> None:
    container.write('echo "$GREETING $TOKEN"', env={"GREETING": "hi"}, secret_names=["TOKEN"])

    container.start(stdin=b"TOKEN=s3cr=t\nx\0")
    container.exit()

    assert container.log() == "hi s3cr=t\nx\n"
    names = {path.name for path in container.folder.iterdir() if b"s3cr" in path.read_bytes()}
    assert names == {"log"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_user_is_taken_with_nothing_of_ours(container: Container) -> None:
    container.run("id -u; id -g; id -G; echo it >/dev/stdout", uid=1234, gid=2345)

    assert container.log() == "1234\n2345\n2345\nit\n"


def test_control_group_that_is_gone_is_a_failed_start(container: Container) -> None:
    record = container.run("echo", cgroups=[str(container.folder / "gone")])

    assert record["error"] == "No such file or directory"
