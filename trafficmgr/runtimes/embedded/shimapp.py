"""The shim's other half: the application, everything that descends from it, and its end.

Part of the shim: standard library only, and little of that; what it promises is in `shim.py`.
"""

import ctypes
import fcntl
import json
import os
import select
import signal
import time

TYPE_CHECKING = False  # mypy takes it for true; typing's own is slow to import
if TYPE_CHECKING or __name__ != "shimapp":
    from trafficmgr.runtimes.embedded import shimgroup
    from trafficmgr.runtimes.embedded.shimlog import Log
else:  # as part of a shim that runs
    import shimgroup
    from shimlog import Log

if TYPE_CHECKING:
    from typing import Any, Never

PR_SET_CHILD_SUBREAPER = 36
KILL_PATIENCE_S = 5.0
"""How long to wait for killed processes. Longer only helps those in uninterruptible sleep."""
CHUNK_BYTES = 64 * 1024
"""The size of a pipe's buffer: one read takes all of it."""


def take_lock() -> int | None:
    """Return the descriptor that holds this folder's lock, or None if another shim has it."""
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return lock


def keep_what_is_here() -> None:
    """Run what the folder says, unless it did so before."""
    if os.path.exists("exit.json") or not os.path.exists("spec.json"):  # noqa: PTH110  pathlib is slow to import
        return
    with open("spec.json", "rb") as file:  # noqa: PTH123  pathlib is slow to import
        keep(json.load(file))


def keep(spec: "dict[str, Any]") -> None:
    """Run the application of the spec from its first to its last process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = listen_for_signals()
    log = Log(spec["log_bytes"])
    env = spec["env"] | (read_secrets() if spec.get("secret_names") else {})
    try:
        app, output = spawn(spec, env)
    except OSError as error:
        failure = {"error": error.strerror, "errno": error.errno, "at": now(), "ended_at": today()}
        shimgroup.remove(spec.get("cgroups", ()))
        write_file("exit.json", failure)
        return
    del env
    container = Container(spec, app, output, wake, log)
    try:
        write_file("identity.json", identity(app))
    except OSError:
        container.kill_rest()  # nobody could ever find it
        raise
    let_go_of_starter()
    container.run()
    container.kill_rest()
    container.drain()
    ended = container.exit()
    shimgroup.remove(container.cgroups)
    write_file("exit.json", ended)


def now() -> float:
    """Return seconds on the clock that all our processes share."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def today() -> float:
    """Return seconds since the epoch, for display."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def listen_for_signals() -> int:
    """Return a descriptor from which the numbers of arriving signals can be read."""
    wake, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake


def read_secrets() -> dict[str, str]:
    """Return the variables that the starter writes to our stdin: NAME=value, each with a NUL."""
    data = b""
    while chunk := os.read(0, CHUNK_BYTES):
        data += chunk
    pairs = (entry.partition(b"=") for entry in data.split(b"\0")[:-1])
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def let_go_of_starter() -> None:
    """Close our ends of the starter's pipes: it may go on."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


# -- the application ------------------------------------------------------------------------------


def spawn(spec: "dict[str, Any]", env: dict[str, str]) -> tuple[int, int]:
    """Start the application; return its pid and the pipe that carries its output.

    Raises:
        OSError: It could not be executed; nothing of it is left.
    """
    output, output_w = os.pipe()
    failed, failed_w = os.pipe()  # closed by a successful exec, otherwise it carries the errno
    app = os.fork()
    if app == 0:
        become(spec, env, output_w, failed_w)
    os.close(output_w)
    os.close(failed_w)
    number = os.read(failed, 16)
    os.close(failed)
    if number:
        os.waitpid(app, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return app, output


def become(spec: "dict[str, Any]", env: dict[str, str], output: int, failed: int) -> "Never":
    """Turn this forked process into the application, in a process group of its own."""
    try:
        os.setpgid(0, 0)
        shimgroup.enter(spec.get("cgroups", ()))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # ignored ones would stay so across exec
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.umask(0o022)
        os.chdir(spec["cwd"])
        if spec.get("uid") is not None:
            os.fchown(1, spec["uid"], spec["gid"])  # or it could not open /dev/stdout
            os.setgroups([])
            os.setgid(spec["gid"])
            os.setuid(spec["uid"])
        os.execve(spec["path"], spec["argv"], env)  # noqa: S606  no shell is the point
    except OSError as error:
        os.write(failed, str(error.errno).encode())
    finally:
        os._exit(127)


class Container:
    """The application and everything that descends from it."""

    def __init__(
        self, spec: "dict[str, Any]", app: int, output: int, wake: int, log: "Log"
    ) -> None:
        self.spec = spec
        self.cgroups = spec.get("cgroups", ())
        self.app = app
        self.output = output
        self.wake = wake
        self.log = log
        self.status: int | None = None
        self.kill_by: float | None = None
        self.is_killed = False

    def run(self) -> None:
        """Copy output and obey signals until it has ended.

        Told to stop, the whole process group has the grace, not only its leader: a shell that
        died of the signal at once must not cost the server behind it its orderly end.
        """
        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while self.status is None or (self.kill_by is not None and self.has_group()):
            ready = {fd for fd, _ in poll.poll(self.patience_ms())}
            if self.output in ready and not self.copy():
                poll.unregister(self.output)
            if self.wake in ready:
                self.obey(os.read(self.wake, 512))
            if self.kill_by is not None and time.monotonic() >= self.kill_by:
                self.kill_by = None
                self.kill_all()

    def patience_ms(self) -> float | None:
        """Return how long to wait for something to happen; None is for ever."""
        if self.kill_by is None:
            return None
        return max(0.0, self.kill_by - time.monotonic()) * 1000 + 1

    def obey(self, signals: bytes) -> None:
        """Do what the arrived signals ask for."""
        if signal.SIGTERM in signals and self.kill_by is None and not self.is_killed:
            self.kill_by = time.monotonic() + self.spec["grace_s"]
            self.signal_group(self.spec["stop_signal"])
        self.reap()

    def reap(self) -> bool:
        """Take in the processes that ended; return whether there are others left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == self.app:
                self.status = status
            if pid == 0:
                return True

    def signal_group(self, number: int) -> bool:
        """Send the signal to the application's process group; False if there is none.

        Between the reaping of the leader and this call the number can't have been given to
        others: a pid stays taken while a group bears it, and pids are given out in a circle.
        """
        try:
            os.killpg(self.app, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it became another user; SIGKILL is then beyond us, too
        return True

    def has_group(self) -> bool:
        """Whether anyone is left in the application's process group."""
        return self.signal_group(0)

    def kill_all(self) -> None:
        """SIGKILL the process group, the control group, and our children wherever they are."""
        self.is_killed = True
        self.signal_group(signal.SIGKILL)
        shimgroup.kill(self.cgroups)
        for pid in children():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def kill_rest(self) -> None:
        """End what the application left behind. The orphans of the killed become our children."""
        give_up_at = time.monotonic() + KILL_PATIENCE_S
        self.kill_all()
        while self.reap() and time.monotonic() < give_up_at:
            select.select([self.wake], [], [], 0.02)
            drain(self.wake)
            self.kill_all()

    def copy(self) -> bool:
        """Copy one chunk of output to the log; return False at its end."""
        data = os.read(self.output, CHUNK_BYTES)
        if data:
            self.log.write(data)
        return bool(data)

    def drain(self) -> None:
        """Copy what is left in the pipe. Someone outside of our reach may hold it open."""
        os.set_blocking(self.output, False)
        try:
            while self.copy():
                continue
        except BlockingIOError:
            pass
        self.log.finish()

    def exit(self) -> "dict[str, Any]":
        """Return the content of exit.json."""
        assert self.status is not None  # noqa: S101  an invariant, stays on
        code = os.waitstatus_to_exitcode(self.status)
        return {
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "at": now(),
            "ended_at": today(),
            "dropped_bytes": self.log.dropped,
            "oom_kills": shimgroup.oom_kills(self.cgroups),
        }


def children() -> list[int]:
    """Return the pids of our children, adopted ones included."""
    names = os.listdir("/proc")  # noqa: PTH208  pathlib is slow to import
    return [int(name) for name in names if name.isdigit() and _is_ours(int(name))]


def _is_ours(pid: int) -> bool:
    try:
        return int(stat_fields(pid)[1]) == os.getpid()
    except OSError:
        return False


def drain(wake: int) -> None:
    """Forget the signals that arrived."""
    try:
        os.read(wake, 512)
    except BlockingIOError:
        return


# -- files ----------------------------------------------------------------------------------------


def write_file(name: str, content: "dict[str, Any]") -> None:
    """Replace the file atomically and durably."""
    fd = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    os.write(fd, json.dumps(content).encode())
    os.fsync(fd)
    os.close(fd)
    os.replace(name + ".new", name)  # noqa: PTH105  pathlib is slow to import


def identity(app: int) -> "dict[str, Any]":
    """Return what tells this boot's two processes from all others (`identity.py`)."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123  pathlib is slow to import
        boot_id = file.read().strip()
    return {
        "boot_id": boot_id,
        "shim": process(os.getpid()),
        "app": process(app),
        "started_at": today(),
    }


def process(pid: int) -> dict[str, int]:
    """Return a pid and when it started, in clock ticks since boot."""
    return {"pid": pid, "start_ticks": int(stat_fields(pid)[19])}


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on: proc(5) counts it as the third."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  pathlib is slow to import
        return file.read().rpartition(b")")[2].split()
