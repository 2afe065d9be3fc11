"""What lies on disk for each group, and what it says about the group's state.

```
groups/GROUP/group.json             the GroupSpec and its hash; written first
groups/GROUP/CONTAINER/spec.json    what the shim shall run (process.py)
                       lock         held by the shim for life
                       identity.json  who runs; written once the application was executed
                       exit.json    how it ended; written once all of it is gone
                       log, log.1   its output
                       shim.err     what the shim had to complain about; empty
logs/GROUP/CONTAINER/log, log.1     the output of groups that are gone
```

The folders are the only memory of the runtime: a new controller knows all that the old one knew.
A container without identity and exit was never started, or is just about to be; `launch.py` and
`ending.py` settle that by the lock.
"""

import hashlib
import shutil
import signal
from pathlib import Path
from typing import TypeVar

import msgspec

from trafficmgr.core.noun import Noun
from trafficmgr.runtimes.contract import GroupSpec, GroupState, GroupStatus
from trafficmgr.runtimes.embedded.files import write_file
from trafficmgr.runtimes.embedded.identity import Identity, is_alive
from trafficmgr.runtimes.embedded.process import ProcessSpec

KEPT_LOGS = 50
"""How many stopped groups' logs are kept: some days of rollouts, at most 20 MiB each."""
LOG_NAMES = ("log.1", "log")
"""A container's log files, oldest first."""

_AnyNoun = TypeVar("_AnyNoun", bound=Noun)


class ExitRecord(Noun):
    """The content of exit.json. `error` and `errno` say why it could not even be executed."""

    at: float = 0.0
    code: int | None = None
    signal: int | None = None
    error: str = ""
    errno: int = 0
    dropped_bytes: int = 0

    @property
    def reason(self) -> str:
        """How it ended, in a few words."""
        if self.error:
            return f"could not be executed: {self.error}"
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}"
        return f"exit code {self.code}"


class GroupRecord(Noun):
    """The content of group.json."""

    spec: GroupSpec
    spec_hash: str


class ContainerFolder:
    """One container's files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def process(self) -> ProcessSpec | None:
        """Return what was to be run."""
        return _read(self.path / "spec.json", ProcessSpec)

    def identity(self) -> Identity | None:
        """Return who runs, or ran."""
        return _read(self.path / "identity.json", Identity)

    def exit(self) -> ExitRecord | None:
        """Return how it ended; None if it has not, or its shim was killed."""
        return _read(self.path / "exit.json", ExitRecord)

    def has_started(self) -> bool:
        """Whether its start is decided, either way."""
        return self.exit() is not None or self.identity() is not None

    def end_reason(self) -> str | None:
        """Return how it ended, in a few words; None if it runs or was never started."""
        identity = self.identity()
        is_running = identity is not None and identity.is_of_this_boot and is_alive(identity.shim)
        record = self.exit()  # read after the look at the shim, which writes it as it ends
        if record is not None:
            return record.reason
        if identity is None or is_running:
            return None
        return "shim lost" if identity.is_of_this_boot else "the machine was restarted"


class GroupFolder:
    """One group's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.group = path.name

    def record(self) -> GroupRecord | None:
        """Return what the group is; None if nothing of it was written yet."""
        return _read(self.path / "group.json", GroupRecord)

    def containers(self) -> tuple[ContainerFolder, ...]:
        """Return the folders of its containers, in the order of the template."""
        record = self.record()
        templates = record.spec.template.containers if record is not None else ()
        return tuple(ContainerFolder(self.path / template.name) for template in templates)

    def create(self, spec: GroupSpec, processes: tuple[ProcessSpec, ...]) -> None:
        """Write down what shall run. What an interrupted start wrote stays: a shim may have it.

        spec.json need not be durable: after a crash of the machine no shim has read it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        record = GroupRecord(spec=spec, spec_hash=spec_hash(spec))
        write_file(self.path / "group.json", msgspec.json.encode(record))
        for container, process in zip(self.containers(), processes, strict=True):
            container.path.mkdir(exist_ok=True)
            if container.process() is None:
                write_file(
                    container.path / "spec.json", msgspec.json.encode(process), is_durable=False
                )

    def status(self) -> GroupStatus | None:
        """Return the state of the group; None while its start is not finished.

        A group of which one container has ended has ended: only the controller restarts.
        """
        record = self.record()
        if record is None:
            return None
        containers = self.containers()
        for container in containers:
            reason = container.end_reason()
            if reason is not None:
                where = f'container "{container.path.name}": ' if len(containers) > 1 else ""
                return GroupStatus(
                    group=self.group,
                    endpoint=record.spec.endpoint,
                    state=GroupState.exited,
                    reason=where + reason,
                )
        identities = [container.identity() for container in containers]
        if None in identities:
            return None
        pid = identities[0].app.pid if identities and identities[0] is not None else None
        return GroupStatus(
            group=self.group, endpoint=record.spec.endpoint, state=GroupState.running, pid=pid
        )

    def may_be_removed_by(self, instance: str) -> bool:
        """Whether the group is this instance's, or a start or stop that was killed left it.

        group.json is there before a shim starts, and the folder loses its name before its files:
        without it nothing runs here. One that can't be read may be a newer version's.
        """
        record = self.record()
        if record is None:
            return not (self.path / "group.json").exists()
        return record.spec.instance == instance

    def remove(self, logs: Path) -> None:
        """Forget the group, except for its logs, which move below the folder `logs`."""
        for container in self.containers():
            for name in LOG_NAMES:
                _move(container.path / name, logs / self.group / container.path.name / name)
        _forget_oldest(logs)
        gone = self.path.with_name(f".gone-{self.group}")  # half a folder is never seen as a group
        shutil.rmtree(gone, ignore_errors=True)
        if self.path.exists():
            self.path.rename(gone)
            shutil.rmtree(gone)


def spec_hash(spec: GroupSpec) -> str:
    """Return the sha256 of a spec, in hex."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()


def groups(folder: Path, instance: str) -> tuple[GroupFolder, ...]:
    """Return the groups below the folder that belong to the instance, by name."""
    if not folder.is_dir():
        return ()
    found = (GroupFolder(path) for path in sorted(folder.iterdir()) if path.name[0] != ".")
    return tuple(group for group in found if _belongs(group.record(), instance))


def _belongs(record: GroupRecord | None, instance: str) -> bool:
    return record is not None and record.spec.instance == instance


def _read(path: Path, kind: type[_AnyNoun]) -> _AnyNoun | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _move(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _forget_oldest(logs: Path) -> None:
    if logs.is_dir():
        kept = sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in kept[KEPT_LOGS:]:
            shutil.rmtree(path, ignore_errors=True)
