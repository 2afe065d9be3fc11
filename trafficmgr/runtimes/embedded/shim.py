"""The shim: one small process that keeps one container's process, whatever happens to us.

Started as `python -I -S shim.py FOLDER`, it needs nothing but the standard library and that folder
(the words of the files are in `folders.py`). What it promises:

* It is in a session of its own and the parent of nobody's parent: no signal, terminal or death of
  the controller reaches it. It sets no PDEATHSIG.
* It holds an flock on `lock` for life. A second start in the same folder changes nothing; nor does
  one after `exit.json` was written. So starting a container twice is a no-op.
* It is a subreaper: whatever the application leaves behind, even a daemon in a session of its own,
  is its child in the end, and is killed with the application.
* `identity.json` is written once the application runs, `exit.json` once all of it is gone; both by
  write, fsync, rename. There is never half a file.
* It reads the application's output and rotates `log` by size. A full disk costs log lines, which
  are counted, and nothing else.
* SIGTERM ends it in order: the image's stop signal to the whole process group, the grace, SIGKILL.

There is one shim for each container that runs, so it imports little: about 6 MB of its own memory
and 30 ms until the application runs. `pathlib` and `typing` would add to both.

Its stdout is a pipe to whoever starts it. It is closed when the start is decided, either way.
"""

import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # mypy takes it for true; typing's own is slow to import
if TYPE_CHECKING:
    from typing import Any, Never

PR_SET_CHILD_SUBREAPER = 36
KILL_PATIENCE_S = 5.0
"""How long to wait for killed processes. Longer only helps those in uninterruptible sleep."""
CHUNK_BYTES = 64 * 1024
"""The size of a pipe's buffer: one read takes all of it."""
BUSY = b"busy"


def main(folder: str) -> None:
    """Leave the parent, then look after the container in the folder until it has ended."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir(folder)
    lock = take_lock()
    if lock is None:
        os.write(1, BUSY)
    elif not os.path.exists("exit.json") and os.path.exists("spec.json"):  # noqa: PTH110  pathlib is slow to import
        with open("spec.json", "rb") as file:  # noqa: PTH123  pathlib is slow to import
            keep(json.load(file))


def take_lock() -> int | None:
    """Return the descriptor that holds this folder's lock, or None if another shim has it."""
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return lock


def keep(spec: "dict[str, Any]") -> None:
    """Run the application of the spec from its first to its last process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = listen_for_signals()
    log = Log(spec["log_bytes"])
    try:
        app, output = spawn(spec)
    except OSError as error:
        write_file("exit.json", {"error": error.strerror, "errno": error.errno, "at": now()})
        return
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
    write_file("exit.json", container.exit())


def now() -> float:
    """Return seconds on the clock that all our processes share."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def listen_for_signals() -> int:
    """Return a descriptor from which the numbers of arriving signals can be read."""
    wake, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake


def let_go_of_starter() -> None:
    """Close our end of the starter's pipe: it may go on."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


# -- the application ------------------------------------------------------------------------------


def spawn(spec: "dict[str, Any]") -> tuple[int, int]:
    """Start the application; return its pid and the pipe that carries its output.

    Raises:
        OSError: It could not be executed; nothing of it is left.
    """
    output, output_w = os.pipe()
    failed, failed_w = os.pipe()  # closed by a successful exec, otherwise it carries the errno
    app = os.fork()
    if app == 0:
        become(spec, output_w, failed_w)
    os.close(output_w)
    os.close(failed_w)
    number = os.read(failed, 16)
    os.close(failed)
    if number:
        os.waitpid(app, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return app, output


def become(spec: "dict[str, Any]", output: int, failed: int) -> "Never":
    """Turn this forked process into the application, in a process group of its own."""
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # ignored ones would stay so across exec
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.umask(0o022)
        os.chdir(spec["cwd"])
        os.execve(spec["path"], spec["argv"], spec["env"])  # noqa: S606  no shell is the point
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
        """SIGKILL the process group, and our children whatever group they are in."""
        self.is_killed = True
        self.signal_group(signal.SIGKILL)
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
        self.log.write(data)
        return bool(data)

    def drain(self) -> None:
        """Copy what is left in the pipe. Someone outside of our reach may hold it open."""
        os.set_blocking(self.output, False)
        try:
            while self.copy():
                continue
        except BlockingIOError:
            return

    def exit(self) -> "dict[str, Any]":
        """Return the content of exit.json."""
        assert self.status is not None  # noqa: S101  an invariant, stays on
        code = os.waitstatus_to_exitcode(self.status)
        return {
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "at": now(),
            "dropped_bytes": self.log.dropped,
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


class Log:
    """The file `log`, of at most about `limit` bytes, and the one before it, `log.1`.

    It changes files between lines, unless a line is longer than the limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = 0
        self.at_line_start = True
        self.open()

    def open(self) -> None:
        """Go on where the file ends."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.fd = os.open("log", flags, 0o640)
        self.size = os.fstat(self.fd).st_size

    def write(self, data: bytes) -> None:
        """Append the data; what the disk has no room for is dropped and counted."""
        if self.size >= self.limit:
            data = self.rotated(data)
        try:
            written = os.write(self.fd, data)
        except OSError:
            written = 0
        self.size += written
        self.dropped += len(data) - written
        self.at_line_start = data.endswith(b"\n") if data else self.at_line_start

    def rotated(self, data: bytes) -> bytes:
        """Change files at the next end of a line; return the data for the new file."""
        cut = 0 if self.at_line_start else data.find(b"\n") + 1
        if not cut and not self.at_line_start and self.size < 2 * self.limit:
            return data
        try:
            os.write(self.fd, data[:cut])
            os.replace("log", "log.1")  # noqa: PTH105  pathlib is slow to import
            os.close(self.fd)
            self.open()
        except OSError:
            self.dropped += cut  # at worst counted twice; the file at hand goes on
        return data[cut:]


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
    return {"boot_id": boot_id, "shim": process(os.getpid()), "app": process(app)}


def process(pid: int) -> dict[str, int]:
    """Return a pid and when it started, in clock ticks since boot."""
    return {"pid": pid, "start_ticks": int(stat_fields(pid)[19])}


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on: proc(5) counts it as the third."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  pathlib is slow to import
        return file.read().rpartition(b")")[2].split()


if __name__ == "__main__":
    main(sys.argv[1])
