"""The logs of groups that are gone: `state_dir/logs/GROUP/CONTAINER/log`.

They are written when a group is stopped, before its containers are removed, in the form that the
embedded runtime has too: one line for each line, with the time at which it was written before it
(RFC 3339, UTC, nanoseconds) and a space. They go after `keep_logs`, and the oldest first beyond a
number of groups.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trafficmgr.runtimes.docker.lines import Line

KEPT_GROUPS = 50
"""How many stopped groups' logs are kept at most, as the embedded runtime does: some days of
rollouts, at most 20 MiB for each container."""


class KeptLogs:
    """What groups that are gone have written."""

    def __init__(self, folder: Path, keep_s: float) -> None:
        """Keep them below a folder, for so many seconds."""
        self._folder = folder
        self.keep_s = keep_s

    def place(self, group: str, container: str) -> Path:
        """Return where a container's log is kept."""
        return self._folder / group / container / "log"

    def write(self, group: str, container: str, lines: list[Line]) -> None:
        """Keep what a container has written. What was kept of it before is replaced."""
        place = self.place(group, container)
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name("log.new")
        with new.open("wb") as file:
            file.writelines(line.stamp + b" " + line.text + b"\n" for line in lines)
        new.replace(place)
        os.utime(self._folder / group)

    def containers(self, group: str) -> tuple[str, ...]:
        """Return the containers of a group of which something is kept."""
        folder = self._folder / group
        with suppress(OSError):
            return tuple(sorted(path.parent.name for path in folder.glob("*/log")))
        return ()

    def read(self, group: str, container: str) -> list[Line]:
        """Return what is kept of a container."""
        try:
            content = self.place(group, container).read_bytes()
        except OSError:
            return []
        pairs = (line.partition(b" ") for line in content.split(b"\n")[:-1])
        return [Line(stamp, text) for stamp, _, text in pairs]

    def tidy(self, newest: str) -> None:
        """Remove what is too old.

        Args:
            newest: The group whose logs were written just now: its time is the present.
        """
        try:
            now = (self._folder / newest).stat().st_mtime
        except OSError:
            return
        ages = sorted(self._ages(now))
        for position, (age_s, path) in enumerate(ages):
            if age_s > self.keep_s or position >= KEPT_GROUPS:
                shutil.rmtree(path, ignore_errors=True)

    def _ages(self, now: float) -> Iterator[tuple[float, Path]]:
        for path in self._folder.iterdir():
            with suppress(OSError):
                yield now - path.stat().st_mtime, path
