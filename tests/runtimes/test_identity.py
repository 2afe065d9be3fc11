"""A process is known by boot, pid and start time together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from trafficmgr.runtimes.embedded import identity
from trafficmgr.runtimes.embedded.identity import Identity, ProcessId
from trafficmgr.runtimes.embedded.shimapp import process

pytestmark = pytest.mark.processes


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-I", "-S", "-c", "print(flush=True); import time; time.sleep(1000)"]
    env = {"MARK": "m1"}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def of(pid: int) -> ProcessId:
    return ProcessId(**process(pid))


def test_running_process_is_alive(child: subprocess.Popen[bytes]) -> None:
    assert identity.is_alive(of(child.pid))


def test_other_process_with_the_same_pid_is_not_it(child: subprocess.Popen[bytes]) -> None:
    before = of(child.pid)
    other = before.but(start_ticks=before.start_ticks - 1)

    assert not identity.is_alive(other)
    assert identity.open_pidfd(other) is None
    assert not identity.send(other, signal.SIGKILL)
    assert not identity.send_group(other, signal.SIGKILL)
    assert child.poll() is None


def test_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    known = of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not identity.is_alive(known)
    assert not identity.send(known, signal.SIGTERM)


def test_signal_reaches_the_process(child: subprocess.Popen[bytes]) -> None:
    assert identity.send(of(child.pid), signal.SIGTERM)
    assert child.wait(30) == -signal.SIGTERM


def test_process_is_found_by_its_mark(child: subprocess.Popen[bytes]) -> None:
    assert identity.marked("MARK=m1") == (of(child.pid),)
    assert identity.marked("MARK=m") == ()


def test_pid_of_another_boot_means_nothing() -> None:
    here = of(os.getpid())

    assert Identity(boot_id=identity.boot_id(), shim=here, app=here).is_of_this_boot
    assert not Identity(boot_id="another", shim=here, app=here).is_of_this_boot
