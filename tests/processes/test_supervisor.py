"""The supervisor with real processes and sockets; its children are dummies (DESIGN 3)."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.supervisor_support import PATIENCE_S, Service, is_alive, read_pid, until

from trafficmgr.supervisor import Spec
from trafficmgr.supervisor.child import restart_delay_s
from trafficmgr.supervisor.identity import Identity, boot_id, end_all, identity_of
from trafficmgr.supervisor.link import Link
from trafficmgr.supervisor.sockets import _unbound, open_slots
from trafficmgr.supervisor.state import ChildrenFile

pytestmark = pytest.mark.processes

QUIET_HOST = f"127.86.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
"""A loopback address where no other program's ports are in the way."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """One slot, one controller."""
    with Service(tmp_path) as running:
        yield running


# -- a dead worker takes only the connections it held ------------------------------------------


def test_connections_waiting_in_a_dead_workers_slot_are_served_by_its_successor(
    service: Service,
) -> None:
    first = service.ask()
    os.kill(first, signal.SIGSTOP)
    waiting = [service.connect() for _ in range(5)] + [service.connect("dns")]

    os.kill(first, signal.SIGKILL)

    answers = {read_pid(sock) for sock in waiting}
    for sock in waiting:
        sock.close()
    assert answers == {service.worker_pid(start=2)}
    assert first not in answers


def test_datagrams_waiting_in_a_dead_workers_slot_are_answered_by_its_successor(
    service: Service,
) -> None:
    first = service.ask()
    os.kill(first, signal.SIGSTOP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.connect(service.address("dns"))
        for _ in range(3):
            client.send(b"?")

        os.kill(first, signal.SIGKILL)

        answers = {int(client.recv(100)) for _ in range(3)}
    assert answers == {service.worker_pid(start=2)}


def test_each_slot_has_sockets_of_its_own_and_only_its_workers_inherit_them(
    tmp_path: Path,
) -> None:
    with Service(tmp_path, slots=2) as service:
        one, other = service.worker_pid(start=1), service.worker_pid(start=2)
        service.await_told("caught_up")  # the controller has opened what it ever opens
        controller = service.controller_pid()
        until(lambda: {one, other} <= {service.ask() for _ in range(8)}, "both workers answering")

        of_one, of_other, of_controller = map(_sockets_of, (one, other, controller))

    assert (len(of_one), len(of_other)) == (3, 3)
    assert not of_one & of_other
    assert not of_controller & (of_one | of_other)


def test_tls_has_sockets_of_its_own_that_outlive_a_worker(tmp_path: Path) -> None:
    """They are passed on like those of HTTP; only their kind tells them apart."""
    with Service(tmp_path, https=("127.0.0.1", 0)) as service:
        first = service.ask()
        os.kill(first, signal.SIGSTOP)
        waiting = service.connect("https")

        os.kill(first, signal.SIGKILL)

        with waiting:
            assert read_pid(waiting) == service.worker_pid(start=2)
        host, port = service.address("https")
        assert service.await_told("hello")["listen"]["https"] == [f"{host}:{port}"]


def test_sockets_of_tls_are_named_https(tmp_path: Path) -> None:
    https = (("127.0.0.1", 0),)
    (slot,) = open_slots(Spec(tmp_path, (), (), 1, 16, (), (), https=https))

    (told,) = json.loads(slot.as_json())

    assert (told["kind"], told["host"], told["fd"]) == ("https", "127.0.0.1", slot.fds()[0])
    assert slot.addresses("https") == [f"127.0.0.1:{told['port']}"]
    slot.close()


def test_ipv6_sockets_leave_ipv4_alone() -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")

    with _unbound("http", "::", "http") as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_sockets_never_block_and_close_on_exec(tmp_path: Path) -> None:
    spec = Spec(tmp_path, (("127.0.0.1", 0), ("127.0.0.2", 0)), (), 2, 16, (), ())

    slots = open_slots(spec)

    listeners = [listener for slot in slots for listener in slot.listeners]
    assert [each.kind for each in listeners] == ["dns-tcp", "dns-udp"] * 4
    assert len({each.port for each in listeners}) == 2
    for each in listeners:
        assert not each.sock.getblocking()
        assert not each.sock.get_inheritable()
    for slot in slots:
        slot.close()


def _sockets_of(pid: int) -> set[str]:
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return {name for name in links if name.startswith("socket:")}


# -- children come back by themselves ----------------------------------------------------------


def test_killed_controller_comes_back_and_is_told_what_it_missed(service: Service) -> None:
    service.await_told("caught_up")
    first_worker, controller = service.worker_pid(), service.controller_pid()
    os.kill(first_worker, signal.SIGKILL)
    ended = service.await_told("worker_ended", to=controller)

    os.kill(controller, signal.SIGKILL)

    successor = service.controller_pid(start=2)
    service.await_told("caught_up", to=successor)
    hello, ended_again, started, caught_up = service.told(to=successor)
    host, port = service.address("http")
    assert (hello["is"], hello["slots"], hello["pid"]) == ("hello", 1, service.process.pid)
    assert hello["listen"]["http"] == [f"{host}:{port}"]
    assert ended_again == {**ended, "to": successor}
    assert (ended["slot"], ended["how"]) == (0, "killed by SIGKILL")
    assert (started["is"], started["pid"]) == ("worker_started", service.worker_pid(start=2))
    assert ended["start_id"] != started["start_id"]
    assert ended["at"] <= started["at"]
    assert caught_up["is"] == "caught_up"
    assert service.await_said("controller_ended")["how"] == "killed by SIGKILL"


def test_controller_restarts_exactly_the_worker_that_it_names(service: Service) -> None:
    started = service.await_told("worker_started")
    command = json.dumps({"do": "restart_worker", "start_id": started["start_id"]}).encode()

    service.tell(command)
    service.await_told("worker_ended")
    successor = service.await_told("worker_started", times=2)
    service.tell(command)  # again: the slot's current worker is another one by now
    service.tell(b'{"do": "something_new"}')

    service.await_said("controller_line_ignored")
    assert is_alive(successor["pid"])
    assert len(service.said("worker_ended")) == 1


def test_lines_that_are_none_are_ignored_with_a_note(service: Service) -> None:
    for times, line in enumerate((b"{", b"[]", b"\xff", b"[" * 60_000, b"[1]"), start=1):
        service.tell(line)
        service.await_said("controller_line_ignored", times)
    service.tell(b"x" * 150_000)  # longer than any line we know: dropped in pieces
    service.await_said("controller_line_ignored", 6)

    os.kill(service.worker_pid(), signal.SIGKILL)

    service.await_told("worker_ended")


def test_controller_that_reads_nothing_never_blocks_the_supervisor(service: Service) -> None:
    controller = service.controller_pid()
    service.await_told("caught_up")
    os.kill(controller, signal.SIGSTOP)

    os.kill(service.ask(), signal.SIGKILL)

    assert service.ask() == service.worker_pid(start=2)


def test_sighup_is_passed_on_to_the_controller_only(service: Service) -> None:
    service.await_told("caught_up")

    service.process.send_signal(signal.SIGHUP)

    assert service.await_told("SIGHUP")["to"] == service.controller_pid()
    assert service.ask() == service.worker_pid()


def test_crash_looping_worker_is_started_again_more_and_more_slowly(tmp_path: Path) -> None:
    crashing = (sys.executable, "-S", "-c", "raise SystemExit(3)", str(tmp_path))
    with Service(tmp_path, worker_argv=crashing) as service:
        service.await_said("worker_ended", 4)

        ends = service.said("worker_ended")[:4]

    assert [float(end["restart_in_s"]) for end in ends] == [0, 0.1, 0.2, 0.4]
    assert {end["how"] for end in ends} == {"exit code 3"}


def test_program_that_is_missing_is_tried_again_and_said(tmp_path: Path) -> None:
    with Service(tmp_path, worker_argv=("/nonexistent/worker",)) as service:
        assert "No such file" in service.await_said("worker_not_started", 3)["error"]
        service.await_told("caught_up")

        service.process.terminate()

        assert service.process.wait(PATIENCE_S) == 0


def test_restart_delay_doubles_from_the_second_quick_death_up_to_five_seconds() -> None:
    delays = [restart_delay_s(deaths) for deaths in (0, 1, 2, 3, 7, 8, 1000)]

    assert delays == [0, 0, 0.1, 0.2, 3.2, 5, 5]


def test_link_is_overfull_when_more_than_a_mebibyte_was_not_read() -> None:
    ours, theirs = socket.socketpair()
    link = Link(ours)
    with theirs:
        sent = 0
        while not link.is_overfull:
            link.send({"is": "x" * 1000})
            sent += 1
        link.close()

    assert sent > 1024


def test_last_lines_of_a_controller_are_read_though_it_takes_no_more() -> None:
    ours, theirs = socket.socketpair()
    link = Link(ours)
    theirs.sendall(b'{"do": "stop"}\n')
    theirs.close()

    link.send({"is": "caught_up"})
    messages = link.receive()

    assert messages == [{"do": "stop"}]
    assert not link.is_open
    link.close()


# -- what it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_shared", [False, True], ids=["plain", "SO_REUSEPORT"])
@pytest.mark.parametrize(
    ("key", "kind", "transport"),
    [
        ("dns", socket.SOCK_DGRAM, "UDP"),
        ("dns", socket.SOCK_STREAM, "TCP"),
        ("http", socket.SOCK_STREAM, "TCP"),
        ("https", socket.SOCK_STREAM, "TCP"),
    ],
)
def test_port_in_use_by_the_same_user_is_refused_and_nothing_changed(
    tmp_path: Path, key: str, kind: socket.SocketKind, transport: str, *, is_shared: bool
) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        taken.bind((QUIET_HOST, 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        host, port = taken.getsockname()

        addresses = {key: (host, port)}
        with Service(tmp_path, **addresses) as service:  # type: ignore[arg-type]
            refusal = service.refusal()

    assert f"{QUIET_HOST}:{port} is in use by another program ({transport})" in refusal
    assert f"listen.{key}" in refusal
    assert f"ss -lntup | grep :{port}" in refusal
    assert not service.state_dir.exists()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("localhost", "listen.http wants an IP address and found 'localhost'"),
        ("192.0.2.1", "this machine has no address 192.0.2.1"),
    ],
)
def test_address_that_can_not_be_listened_on_is_refused(
    tmp_path: Path, host: str, words: str
) -> None:
    with Service(tmp_path, http=(host, 18080)) as service:
        assert words in service.refusal()


def test_address_listed_twice_is_refused(tmp_path: Path) -> None:
    address = ("127.0.0.1", 18080)
    with Service(tmp_path, dns=address, http=address) as service:
        assert "127.0.0.1:18080 is listed twice, in listen.dns and in" in service.refusal()


def test_address_for_http_and_https_is_refused(tmp_path: Path) -> None:
    address = ("127.0.0.1", 18080)
    with Service(tmp_path, http=address, https=address) as service:
        assert "listed twice, in listen.http and in listen.https" in service.refusal()


def test_second_run_on_the_same_state_dir_is_refused_and_the_first_runs_on(
    tmp_path: Path, service: Service
) -> None:
    service.await_told("caught_up")
    children = service.recorded()

    with Service(tmp_path / "second", state_dir=service.state_dir) as second:
        refusal = second.refusal()

    assert f"another trafficmgr (pid {service.process.pid}) already runs on" in refusal
    assert str(service.state_dir) in refusal
    assert service.recorded() == children
    assert service.ask() == service.worker_pid()


def test_state_dir_below_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    state_dir = tmp_path / "file" / "state"

    with Service(tmp_path, state_dir=state_dir) as service:
        refusal = service.refusal()

    assert f"state_dir {state_dir} can't be written" in refusal
    assert f"{tmp_path / 'file'} is not a directory" in refusal
    assert (tmp_path / "file").read_text() == "mine"


# -- a killed supervisor, and the orderly end ----------------------------------------------------


def test_next_run_after_a_killed_supervisor_ends_its_children_and_takes_the_ports(
    tmp_path: Path, service: Service
) -> None:
    former = [service.ask(), service.controller_pid()]
    service.await_told("caught_up")
    until(lambda: len(service.recorded()) == 2, "both children recorded")
    start_id = service.said("worker_started")[0]["start_id"]
    service.process.kill()
    service.process.wait()
    assert service.ask() == former[0], "its children serve on"

    dns, http = service.address("dns"), service.address("http")
    with Service(tmp_path, dns=dns, http=http) as successor:
        answered_by = successor.ask()
        ended = successor.await_told("worker_ended", to=successor.controller_pid())

    assert answered_by == successor.worker_pid() != former[0]
    assert not any(is_alive(pid) for pid in former)
    assert (ended["start_id"], ended["how"]) == (start_id, "ended by the next run")


@pytest.mark.parametrize("content", ["", "{", "[{}]", '[{"pid": "x"}]', "7", "[" * 9999])
def test_unreadable_record_of_children_does_not_prevent_a_start(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    record = tmp_path / "run" / "children.json"
    record.write_text(content)

    former = ChildrenFile(tmp_path).end_former()

    assert former == []
    assert json.loads(record.read_bytes()) == []
    assert capsys.readouterr().err.startswith("children_record_unreadable ")


def test_only_the_very_process_that_was_recorded_is_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        me = identity_of(stranger.pid)
        assert me is not None
        reused = Identity(me.boot_id, me.pid, me.starttime - 1)
        other_boot = Identity("another", me.pid, me.starttime)

        left_alone = end_all([reused, other_boot], grace_s=PATIENCE_S, kill_s=PATIENCE_S)
        survived = stranger.poll() is None
        left = end_all([me], grace_s=PATIENCE_S, kill_s=PATIENCE_S)

    assert survived
    assert left_alone == left == set()
    assert stranger.returncode == -signal.SIGTERM


def test_record_names_every_living_child_by_identity(service: Service) -> None:
    service.await_told("caught_up")
    until(lambda: len(service.recorded()) == 2, "both children recorded")

    worker, controller = service.recorded()

    assert (worker["role"], worker["slot"]) == ("worker", 0)
    assert worker["start_id"] == service.said("worker_started")[0]["start_id"]
    assert (controller["role"], controller["slot"]) == ("controller", None)
    for child in (worker, controller):
        assert child["boot_id"] == boot_id()
        assert identity_of(child["pid"]) == Identity(boot_id(), child["pid"], child["starttime"])
    assert stat.S_IMODE(service.state_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stop"])
def test_orderly_end_stops_workers_then_the_controller_and_leaves_nothing(
    tmp_path: Path, how: str
) -> None:
    with Service(tmp_path, slots=2) as service:
        children = [service.worker_pid(), service.worker_pid(start=2), service.controller_pid()]
        service.await_told("caught_up")

        if how == "stop":
            service.tell(b'{"do": "stop"}')
        else:
            service.process.send_signal(signal.Signals[how])

        assert service.process.wait(PATIENCE_S) == 0
        assert service.children_alive() == []
        assert not any(is_alive(pid) for pid in children)
        assert not (service.state_dir / "run" / "children.json").exists()
        ends = [line.split()[0] for line in service.log().splitlines() if "_ended " in line]
        assert ends == ["worker_ended", "worker_ended", "controller_ended"]
        assert len(service.told("worker_ended")) == 2, "the controller heard of it"


def test_clients_are_refused_at_once_when_a_stopping_worker_closed_its_sockets(
    tmp_path: Path,
) -> None:
    draining = (  # closes what it inherited on SIGTERM, and takes its time to end
        "import json, os, signal, sys\n"
        "sockets = json.loads(sys.argv[sys.argv.index('--sockets') + 1])\n"
        "def close(*_): [os.close(each['fd']) for each in sockets]; print(flush=True)\n"
        "signal.signal(signal.SIGTERM, close)\n"
        "while True: signal.pause()\n"
    )
    argv = (sys.executable, "-S", "-c", draining, str(tmp_path))
    with Service(tmp_path, worker_argv=argv) as service:
        worker = service.worker_pid()
        until(lambda: _catches(worker, signal.SIGTERM), "the worker's signal handler")
        address = service.address("http")

        service.process.terminate()

        until(lambda: _is_refused(address), "a refused connection")
        assert is_alive(worker)


def _catches(pid: int, signum: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (signum - 1) & 1)


def _is_refused(address: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(address) != 0


STUBBORN = (
    "import signal\n"
    "signal.signal(signal.SIGTERM, lambda *_: print(flush=True))\n"
    "while True: signal.pause()\n"
)


def test_worker_that_does_not_end_in_its_grace_is_killed(tmp_path: Path) -> None:
    argv = (sys.executable, "-S", "-c", STUBBORN, str(tmp_path))
    with Service(tmp_path, worker_argv=argv, grace_s=0.2) as service:
        worker = service.worker_pid()
        until(lambda: _catches(worker, signal.SIGTERM), "the worker being stubborn")

        service.process.terminate()

        assert service.process.wait(PATIENCE_S) == 0
        assert service.await_said("worker_overdue")["slot"] == "0"
        assert service.await_said("worker_ended")["how"] == "killed by SIGKILL"


def test_second_signal_ends_everybody_at_once(tmp_path: Path) -> None:
    argv = (sys.executable, "-S", "-c", STUBBORN, str(tmp_path))
    with Service(tmp_path, worker_argv=argv) as service:
        worker = service.worker_pid()
        until(lambda: _catches(worker, signal.SIGTERM), "the worker being stubborn")
        service.process.terminate()
        service.await_said("supervisor_stopping")
        assert is_alive(worker)

        service.process.send_signal(signal.SIGINT)

        assert service.process.wait(PATIENCE_S) == 128 + signal.SIGINT
        assert service.await_said("worker_ended")["how"] == "killed by SIGKILL"


def test_ctrl_c_in_a_terminal_reaches_the_supervisor_only(service: Service) -> None:
    for child in (service.worker_pid(), service.controller_pid()):
        assert os.getpgid(child) == child


def test_ipv6_address_is_served_and_shown_in_brackets(tmp_path: Path) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    with Service(tmp_path, http=("::1", 0)) as service:
        shown = service.await_told("hello")["listen"]["http"][0]
        port = int(shown.removeprefix("[::1]:"))
        with socket.create_connection(("::1", port), timeout=PATIENCE_S) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read_pid(sock) == service.worker_pid()


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        return sock.connect_ex(("::1", 9)) != 0 and _binds(sock)


def _binds(sock: socket.socket) -> bool:
    try:
        sock.bind(("::1", 0))
    except OSError:
        return False
    return True
