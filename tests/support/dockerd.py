"""A real Docker Engine of the tests' own: its data, its socket, its containerd.

    with Dockerd() as engine:
        client = engine.client()        # docker.APIClient
        engine.stop(); engine.start()   # the same data; kill() is the crash

Nothing of it outlives the block, nor the process that opened it, however that ends: a second
process (the leash) waits for its end and sweeps the folder. The sweep asks the engine for nothing.
It ends processes by pid, unmounts, and takes away the bridges, filter rules and cgroups that this
engine made; it is the ordinary way to end, so that it works on the day when it is needed.
"""

import ctypes
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import pytest

START_TIMEOUT_S = 60.0
"""An engine answers after 0.3 s; a busy machine may need far longer."""

STOP_TIMEOUT_S = 60.0

BRIDGES = IPv4Network("198.18.0.0/15")
"""The benchmarking network of RFC 2544: no machine has it for anything else."""

_CGROUPS = Path("/sys/fs/cgroup")
_MNT_DETACH = 2


def need_dockerd() -> str:
    """Return dockerd's path; without it or root the test is skipped, with CI=true it fails."""
    found = shutil.which("dockerd")
    if found is None:
        reason = "dockerd is not installed (apt-get install docker.io)"
    elif os.geteuid() != 0:
        reason = "dockerd needs root"
    else:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def dockerd() -> Iterator["Dockerd"]:
    """The engine that all tests share. A test that stops it starts it again."""
    with Dockerd() as engine:
        yield engine


class Dockerd:
    """One engine with a folder of its own, running from `with` to the end of the block."""

    def __init__(self, *options: str) -> None:
        """Choose the folder; `options` are further options of dockerd."""
        self._program = need_dockerd()
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="tmd"))  # short: a socket's path has 107 bytes
        self.cgroup_parent = f"/{self.folder.name}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leash = subprocess.Popen(
            [sys.executable, "-c", _LEASH, str(Path(__file__).parents[1]), str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )

    @property
    def host(self) -> str:
        """Where it is spoken to: DOCKER_HOST, or `base_url` of a client."""
        return f"unix://{self.folder}/sock"

    @property
    def pid(self) -> int:
        """The process of the engine."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written since its first start."""
        return (self.folder / "log").read_text(errors="replace")

    def client(self, *, timeout_s: int = 60) -> "docker.APIClient":
        """Return a new client; whoever asks closes it."""
        return docker.APIClient(base_url=self.host, version="auto", timeout=timeout_s)

    def start(self) -> None:
        """Start it, on the data that is there, and wait until it answers."""
        assert self._process is None, "it runs already"
        _let_bridges_talk(self.folder.name)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.folder / "sock"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"dockerd did not start:\n{self.log[-4000:]}")
            time.sleep(0.02)

    def _command(self) -> list[str]:
        config = self.folder / "daemon.json"
        config.write_text("{}")  # instead of the machine's own /etc/docker/daemon.json
        return [
            self._program,
            f"--config-file={config}",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            f"--host={self.host}",
            "--bridge=none",
            "--log-level=warn",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent={self.cgroup_parent}",
            "--iptables=false",  # or engines that run at the same time flush each other's rules,
            "--ip6tables=false",  # and the machine's own policy is changed for good
            "--ip-masq=false",
            "--ip-forward=false",
            *self._options,
        ]

    def stop(self) -> None:
        """End it in good order: it stops its containers, then itself."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Let it crash: its containers run on, and the next start finds them."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None, "it does not run"
        self._process.send_signal(how)
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        self._end_containerd()

    def _end_containerd(self) -> None:
        """End the engine's own containerd, if it still is there.

        It goes down with the engine, but not at once, and is a zombie for as long as the machine's
        init takes no notice. An engine that is started meanwhile takes it for alive by the record
        of its pid, starts no other and gives up after 15 s.
        """
        record = self.folder / "exec/containerd/containerd.pid"
        if record.exists():
            process = Path("/proc") / record.read_text().strip()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while str(self.folder).encode() in _command_line(process):
                _end(int(process.name))
                assert time.monotonic() < deadline, f"containerd ({process.name}) does not end"
                time.sleep(0.01)
            record.unlink()

    def pause(self) -> None:
        """Let it hang: it accepts connections and answers nothing, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and everything that it started, and remove all that it made."""
        if self._process is not None:
            self.kill()
        assert self._leash.stdin is not None
        self._leash.stdin.close()  # the sweep is the leash's work in any case
        code = self._leash.wait(STOP_TIMEOUT_S)
        assert code == 0, f"the engine in {self.folder} was not swept away, see above"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def free_subnet(prefix_len: int = 24) -> IPv4Network:
    """Return a network in BRIDGES that no interface of this machine has now, at random.

    At random, because several test runs on one machine may ask at the same time.
    """
    taken = list(_routed_networks())
    for _ in range(1000):
        offset = random.randrange(2 ** (prefix_len - BRIDGES.prefixlen))  # noqa: S311  no secret
        first = int(BRIDGES.network_address) + offset * 2 ** (32 - prefix_len)
        network = IPv4Network((first, prefix_len))
        if not any(network.overlaps(other) for other in taken):
            return network
    pytest.fail(f"no free /{prefix_len} is left in {BRIDGES}")


def _routed_networks() -> Iterator[IPv4Network]:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            yield IPv4Network((address, mask.bit_count()))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(START_TIMEOUT_S)
        try:
            peer.connect(str(path))
            peer.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return b" 200 " in peer.recv(100)
        except OSError:
            return False


def filter_rules() -> list[str]:
    """Return the rules for forwarded packets, as iptables takes them; none if there can't be any.

    Where bridges are filtered, too (br_netfilter), these are about packets between containers.
    """
    if shutil.which("iptables") is None:
        return []
    command = _path_of("iptables", "-w", "-S", "FORWARD")
    listed = subprocess.run(command, capture_output=True, check=False, text=True)
    return listed.stdout.splitlines()


def _let_bridges_talk(name: str) -> None:
    """Allow what a machine denies on which another engine runs; the rule bears the name."""
    rules = filter_rules()
    if "-P FORWARD DROP" in rules and not any(name in rule for rule in rules):
        bridges = ("-s", str(BRIDGES), "-d", str(BRIDGES), "-m", "comment", "--comment", name)
        rule = _path_of("iptables", "-w", "-I", "FORWARD", *bridges, "-j", "ACCEPT")
        subprocess.run(rule, check=True)


# -- the sweep ------------------------------------------------------------------------------------

_LEASH = """
import sys
sys.path.insert(0, sys.argv[1])
sys.stdin.read()
from support.dockerd import sweep
sweep(sys.argv[2])
"""


def sweep(folder: str) -> None:
    """End, unmount and remove all that an engine in this folder has left on the machine."""
    deadline = time.monotonic() + STOP_TIMEOUT_S / 2
    while pids := list(_processes_of(folder)):  # what was killed may have started another meanwhile
        assert time.monotonic() < deadline, f"processes of {folder} do not end: {pids}"
        for pid in pids:
            _end(pid)
        time.sleep(0.01)
    for point in reversed(list(_mounts_below(folder))):
        _unmount(point)
    _remove_bridges(folder)
    _remove_sockets(folder)
    for rule in filter_rules():
        if Path(folder).name in rule:
            deletion = rule.replace("-A ", "-D ", 1).replace('"', "").split()
            subprocess.run(_path_of("iptables", "-w", *deletion), check=True)
    for parent in _CGROUPS.glob(f"*/{Path(folder).name}"):
        for group, _, _ in os.walk(parent, topdown=False):
            Path(group).rmdir()
    shutil.rmtree(folder, ignore_errors=False)


def _processes_of(folder: str) -> Iterator[int]:
    """Yield engine, containerd, shims (their command lines name the folder) and containers."""
    mark = f"{folder}/"
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in _command_line(entry) or _has_root_in(entry, mark):
                yield int(entry.name)
        except OSError:
            continue  # it has just ended


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _has_root_in(process: Path, mark: str) -> bool:
    """Whether the process's root is an overlay whose upper folder is below ours."""
    for line in (process / "mountinfo").read_text(errors="replace").splitlines():
        if line.split(" ", 5)[4] == "/":
            return mark in line
    return False


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def _mounts_below(folder: str) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ", 5)[4].replace("\\040", " ")
        if point.startswith(f"{folder}/"):
            yield point


def _unmount(point: str) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(point.encode(), _MNT_DETACH):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), point)


def _remove_sockets(folder: str) -> None:
    """Remove those of shims; they lie beside everyone's, named by a hash of whose they are."""
    for container in Path(folder, "data/containers").glob("*"):
        whose = f"{folder}/exec/containerd/containerd.sock/moby/{container.name}"
        name = hashlib.sha256(whose.encode()).hexdigest()
        Path("/run/containerd/s", name).unlink(missing_ok=True)


def _remove_bridges(folder: str) -> None:
    """Remove the bridges that the engine's own database names."""
    database = Path(folder, "data/network/files/local-kv.db")
    known = database.read_bytes() if database.exists() else b""
    for bridge in Path("/sys/class/net").glob("*/bridge"):
        name = bridge.parent.name
        if name.removeprefix("br-").encode() in known:
            subprocess.run(_path_of("ip", "link", "delete", name), check=True)


def _path_of(program: str, *arguments: str) -> list[str]:
    return [shutil.which(program) or program, *arguments]
