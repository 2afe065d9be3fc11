"""What the supervisor keeps on disk: its lock, and the record of its children.

`state_dir/supervisor.lock` is locked (flock) for the supervisor's life; its content only tells a
second run who holds it. `state_dir/run/children.json` names every living child, so that a run
after a SIGKILL can end what it finds. It is written right after a child was started: a supervisor
killed in those few milliseconds leaves a child that the next run does not know; its ports then
show up as in use.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trafficmgr.supervisor.identity import Identity, boot_id, end_all, identity_of
from trafficmgr.supervisor.spec import CannotStart, boottime, say

FORMER_GRACE_S = 5.0
"""How long a child of a killed supervisor may take to end: its ports are closed to users till then.

Shorter than an orderly stop (15 s): nobody serves new connections meanwhile.
"""

FORMER_KILL_S = 5.0
"""How long the kernel may take to end a killed process before we give up on it."""


@dataclass(frozen=True)
class Record:
    """A child as children.json has it; `slot` is None for the controller."""

    role: str
    slot: int | None
    start_id: str
    pid: int
    starttime: int
    boot_id: str

    @property
    def identity(self) -> Identity:
        """Who it is."""
        return Identity(boot_id=self.boot_id, pid=self.pid, starttime=self.starttime)


def is_fresh(state_dir: Path) -> bool:
    """Whether no supervisor ever ran here, so that nobody can be left of a former one."""
    with _refusing(state_dir):
        return not _lock_path(state_dir).exists()


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold the lock of `state_dir`, which is made if it is missing. Nothing else is changed.

    Raises:
        CannotStart: It can't be written, or another supervisor runs on it.
    """
    with _refusing(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(_lock_path(state_dir), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(lock, state_dir)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, state_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(
            f"another trafficmgr (pid {_holder(lock)}) already runs on {state_dir}; "
            "use another state_dir or stop it with `trafficmgr stop`"
        ) from None
    with _refusing(state_dir):
        me = identity_of(os.getpid())
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(asdict(me) if me else {}).encode() + b"\n", 0)


def _holder(lock: int) -> object:
    try:
        return json.loads(os.pread(lock, 4096, 0))["pid"]
    except (ValueError, TypeError, KeyError):
        return "unknown"


class ChildrenFile:
    """`state_dir/run/children.json`."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._path = state_dir / "run" / "children.json"

    def end_former(self) -> list[Record]:
        """End whoever a killed supervisor left, and return the records of this boot.

        Raises:
            CannotStart: One of them can't be ended, or `state_dir` can't be written.
        """
        former = [record for record in self._read() if record.boot_id == boot_id()]
        if former:
            say("takeover_started", former_children=len(former))
        began_at = boottime()
        left = end_all(
            (record.identity for record in former), grace_s=FORMER_GRACE_S, kill_s=FORMER_KILL_S
        )
        if left:
            pids = ", ".join(sorted(str(identity.pid) for identity in left))
            raise CannotStart(
                f"a former run on {self._state_dir} left processes that can't be ended "
                f"(pid {pids}); they still serve; end them as the user who started them"
            )
        if former:
            say("takeover_done", after_s=round(boottime() - began_at, 3))
        with _refusing(self._state_dir):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._replace([])
        return former

    def write(self, records: list[Record]) -> None:
        """Replace the record. A disk that is away is told and never stops traffic."""
        try:
            self._replace(records)
        except OSError as error:
            say("children_not_recorded", path=self._path, error=error.strerror)

    def remove(self) -> None:
        """Forget everybody: all children ended."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _read(self) -> list[Record]:
        try:
            return [_record(entry) for entry in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            say("children_record_unreadable", path=self._path, error=error)
            return []

    def _replace(self, records: list[Record]) -> None:
        """Write, fsync, rename: a reader finds the old record or the new one, never half."""
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(json.dumps([asdict(record) for record in records]).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _record(entry: dict[str, Any]) -> Record:
    """Return the entry as a record.

    Raises:
        TypeError, KeyError: It is none. The caller treats the file as unreadable.
    """
    if not (isinstance(entry["pid"], int) and isinstance(entry["starttime"], int)):
        raise TypeError(f"no process: {entry}")
    return Record(**entry)


def _lock_path(state_dir: Path) -> Path:
    return state_dir / "supervisor.lock"


@contextlib.contextmanager
def _refusing(state_dir: Path) -> Iterator[None]:
    """Turn an OSError into the sentence that names what stands in the way."""
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or state_dir}: {error.strerror}"
        if isinstance(error, NotADirectoryError | FileExistsError):
            files = (path for path in (state_dir, *state_dir.parents) if path.is_file())
            reason = f"{next(files, state_dir)} is not a directory"
        raise CannotStart(
            f"state_dir {state_dir} can't be written: {reason}; "
            "nothing was started; give state_dir a path that this user can write"
        ) from error
