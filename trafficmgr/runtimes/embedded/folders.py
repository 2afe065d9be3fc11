"""What lies on disk for each group, and what it says about the group's state.

```
groups/GROUP/group.json             the GroupSpec and its hash; written first
groups/GROUP/CONTAINER/spec.json    what the shim shall run (process.py)
                       lock         held by the shim for life
                       identity.json  who runs; written once the application was executed
                       exit.json    how it ended; written once all of it is gone
                       log, log.1   its output (shimlog.py)
                       shim.err     what the shim had to complain about; empty
groups/GROUP/.volumes/VOLUME        an empty_dir (volumes.py)
logs/GROUP/CONTAINER/log, log.1     the output of groups that are gone
```

The folders are the only memory of the runtime: a new controller knows all that the old one knew.
A container without identity and exit was never started, or is just about to be; `launch.py` and
`ending.py` settle that by the lock. What all this says of the group's state is in `states.py`. No
value of a secret is in any of these files.
"""

import hashlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ContainerTemplate, GroupTemplate
from trafficmgr.runtimes.contract import GroupSpec, RuntimeUnknownError
from trafficmgr.runtimes.embedded.files import remove_tree, write_file
from trafficmgr.runtimes.embedded.identity import Identity
from trafficmgr.runtimes.embedded.process import ProcessSpec

KEPT_LOGS = 50
"""How many stopped groups' logs are kept at most: days of rollouts, up to 20 MiB a container."""
LOG_NAMES = ("log.1", "log")
"""A container's log files, oldest first."""

_AnyNoun = TypeVar("_AnyNoun", bound=Noun)


class ExitRecord(Noun):
    """The content of exit.json. `error` and `errno` say why it could not even be executed.

    `at` is on the clock of all our processes, `ended_at` seconds since the epoch, for display.
    """

    at: float = 0.0
    ended_at: float | None = None
    code: int | None = None
    signal: int | None = None
    error: str = ""
    errno: int = 0
    dropped_bytes: int = 0
    oom_kills: int = 0

    @property
    def is_oom(self) -> bool:
        """Whether it failed for want of memory: a child's death that it got over is none."""
        return self.oom_kills > 0 and self.code != 0

    @property
    def reason(self) -> str:
        """How it ended, in a few words."""
        if self.error:
            return f"could not be executed: {self.error}"
        if self.is_oom:
            return f"OOMKilled: it needed more memory than its limit ({self._how})"
        return self._how

    @property
    def _how(self) -> str:
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

    def log_files(self) -> tuple[Path, ...]:
        """Return its log files, oldest first."""
        return tuple(self.path / name for name in LOG_NAMES)


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
        template = self._template()
        return self._folders(template.containers if template is not None else ())

    def init_containers(self) -> tuple[ContainerFolder, ...]:
        """Return the folders of its init containers, in their order."""
        template = self._template()
        return self._folders(template.init_containers if template is not None else ())

    def every_container(self) -> tuple[ContainerFolder, ...]:
        """Return all of them, init containers first."""
        return self.init_containers() + self.containers()

    def container(self, name: str) -> ContainerFolder | None:
        """Return the container of this name; "" is the first that is no init container."""
        if not name:
            return next(iter(self.containers()), None)
        return next((one for one in self.every_container() if one.path.name == name), None)

    def create(self, spec: GroupSpec, processes: Sequence[ProcessSpec]) -> None:
        """Write down what shall run. What an interrupted start wrote stays: a shim may have it.

        spec.json need not be durable: after a crash of the machine no shim has read it.

        Args:
            spec: The group.
            processes: For each of `spec.template.every_container()`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        record = GroupRecord(spec=spec, spec_hash=spec_hash(spec))
        write_file(self.path / "group.json", msgspec.json.encode(record))
        for container, process in zip(self.every_container(), processes, strict=True):
            container.path.mkdir(exist_ok=True)
            if container.process() is None:
                write_file(
                    container.path / "spec.json", msgspec.json.encode(process), is_durable=False
                )

    def is_of_another_boot(self) -> bool:
        """Whether something of it ran before the machine was restarted."""
        found = (container.identity() for container in self.every_container())
        return any(one is not None and not one.is_of_this_boot for one in found)

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
        for container in self.every_container():
            for file in container.log_files():
                _move(file, logs / self.group / container.path.name / file.name)
        gone = self.path.with_name(f".gone-{self.group}")  # half a folder is never seen as a group
        remove_tree(gone)
        if self.path.exists():
            self.path.rename(gone)
            remove_tree(gone)

    def _template(self) -> GroupTemplate | None:
        record = self.record()
        return record.spec.template if record is not None else None

    def _folders(self, templates: tuple[ContainerTemplate, ...]) -> tuple[ContainerFolder, ...]:
        return tuple(ContainerFolder(self.path / template.name) for template in templates)


def spec_hash(spec: GroupSpec) -> str:
    """Return the sha256 of a spec, in hex."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()


def groups(folder: Path, instance: str) -> tuple[GroupFolder, ...]:
    """Return the groups below the folder that belong to the instance, by name."""
    if not folder.is_dir():
        return ()
    found = (GroupFolder(path) for path in sorted(folder.iterdir()) if path.name[0] != ".")
    return tuple(group for group in found if _belongs(group.record(), instance))


def images_in_use(folder: Path) -> frozenset[str]:
    """Return the platform digests that all groups below the folder are made of, whosever they are.

    Raises:
        RuntimeUnknownError: What one of them is can't be read.
    """
    found: set[str] = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        record = GroupFolder(path).record()
        if record is not None:
            found |= {image.platform_digest for image in record.spec.images}
        elif path.name[0] != "." and (path / "group.json").exists():
            raise RuntimeUnknownError(
                f"embedded: {path / 'group.json'} can't be read, so nobody knows which images that "
                "group needs. No image is removed, and traffic is not touched. If a newer "
                "trafficmgr wrote it, run that one."
            )
    return frozenset(found)


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


def forget_old_logs(logs: Path, keep_s: float) -> None:
    """Remove the logs of groups that are gone for so long, or were followed by too many."""
    now = time.clock_gettime(time.CLOCK_REALTIME)  # as the file system has it
    try:
        aged = sorted((now - path.stat().st_mtime, path) for path in logs.iterdir())
        for number, (age_s, path) in enumerate(aged):
            if age_s > keep_s or number >= KEPT_LOGS:
                remove_tree(path)
    except FileNotFoundError:
        return  # someone else is at it, or there are none
