"""Secret volumes: files in memory, which are gone with their group.

```
/dev/shm/NAME/GROUP/CONTAINER/VOLUME/FILE     0400, in folders 0700 of the container's user
```

NAME tells installations from each other. Each container that mounts the volume has its own copy,
since it may run as a user of its own. The folders above can be passed through, not listed, if
containers run as other users than we do. Nothing is written where the file system is not memory.
"""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.embedded.mounts import kind_at
from trafficmgr.runtimes.embedded.users import User

MEMORY = Path("/dev/shm")  # noqa: S108  where Linux has its memory-backed folder; checked before use
IN_MEMORY = {"tmpfs", "ramfs"}


class Vault:
    """The secret volumes of one installation."""

    def __init__(self, memory: Path, name: str) -> None:
        self._memory = memory
        self._root = memory / name

    @property
    def gap(self) -> str:
        """Return why there can be no secret volumes here; "" if there can."""
        if self._memory.is_dir() and kind_at(self._memory) in IN_MEMORY:
            return ""
        return f"there is no memory-backed file system at {self._memory} (mount a tmpfs there)"

    def folder(self, group: str, container: str, volume: str) -> Path:
        """Return where a container finds a volume."""
        return self._root / group / container / volume

    def fill(self, folder: Path, files: Mapping[str, bytes], owner: User | None) -> None:
        """Put the files there, in place of what may be there.

        Args:
            folder: As `folder` gave it.
            files: Name -> content.
            owner: Who may read them; None is ourselves.

        Raises:
            RuntimeFailure: There is no memory to put them in, or it is someone else's.
            OSError: It is full.
        """
        if self.gap:
            raise RuntimeFailure(
                f"embedded: cannot keep secrets: {self.gap}. Nothing was written. Groups that "
                "mount secrets can't start, and traffic stays where it is."
            )
        above = (folder.parents[2], folder.parents[1], folder.parents[0])
        for path in above:
            self._make(path, 0o711 if os.geteuid() == 0 else 0o700)
        shutil.rmtree(folder, ignore_errors=True)
        self._make(folder, 0o700)
        for name, content in files.items():
            _write(folder / name, content, owner)
        if owner is not None:
            os.chown(folder, owner.uid, owner.gid)

    def remove(self, group: str) -> None:
        """Forget the group's secrets."""
        shutil.rmtree(self._root / group, ignore_errors=True)
        try:
            self._root.rmdir()
        except OSError:
            return  # another group's are there, or none ever were

    def sweep(self, is_there: Callable[[str], bool]) -> None:
        """Forget the secrets of groups that are gone."""
        if self._root.is_dir():
            for path in tuple(self._root.iterdir()):
                if not is_there(path.name):
                    self.remove(path.name)

    def _make(self, folder: Path, mode: int) -> None:
        """Make a folder that is ours; everybody may write next to ours, and be first."""
        try:
            folder.mkdir(mode=mode)
        except FileExistsError:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise RuntimeFailure(
                    f"embedded: cannot keep secrets in {folder}: someone else made it (uid "
                    f"{found.st_uid}). Nothing was written, and traffic stays where it is. Look "
                    "who that is, and remove it."
                ) from None
        folder.chmod(mode)  # whatever the umask


def _write(path: Path, content: bytes, owner: User | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o400)
    with os.fdopen(fd, "wb") as file:
        if owner is not None:
            os.fchown(fd, owner.uid, owner.gid)
        file.write(content)
