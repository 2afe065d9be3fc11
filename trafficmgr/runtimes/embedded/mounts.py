"""What is mounted here, as far as the embedded runtime asks: cgroup hierarchies and memory.

Source: proc_pid_mountinfo(5).
"""

from collections.abc import Iterator
from pathlib import Path

from trafficmgr.core.noun import Noun

MOUNTINFO = Path("/proc/self/mountinfo")


class Mounted(Noun):
    """A file system in its place. `options` are those of the file system, not of the mount."""

    point: str
    kind: str
    options: tuple[str, ...]


def mounts(source: Path = MOUNTINFO) -> tuple[Mounted, ...]:
    """Return what is mounted, in the order in which it was."""
    return tuple(_parsed(source.read_text("utf-8", "surrogateescape")))


def kind_at(path: Path, source: Path = MOUNTINFO) -> str:
    """Return the kind of file system that the path is on; the last one mounted there counts."""
    real = path.resolve()
    places = [
        (len(one.point), number, one.kind)
        for number, one in enumerate(mounts(source))
        if real.is_relative_to(one.point)
    ]
    return max(places)[2] if places else ""


def _parsed(text: str) -> Iterator[Mounted]:
    for line in text.splitlines():
        where, _, what = line.partition(" - ")
        kind, _, options = what.split(" ", 2)
        yield Mounted(
            point=_unescaped(where.split(" ")[4]), kind=kind, options=tuple(options.split(","))
        )


def _unescaped(name: str) -> str:
    r"""Return the name with its blanks, which stand there as \040."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        name = name.replace(escape, character)
    return name
