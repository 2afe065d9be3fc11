"""Files that are replaced whole, and sockets whose path is too long."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 107
"""sun_path of Linux has 108 bytes with the closing NUL (unix(7))."""


def replace_file(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write, fsync, rename: readers see the old file or the new one, also after a power cut.

    Without a mode the umask decides who may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)  # before there is anything to read
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def short_socket_path(path: Path) -> Iterator[str]:
    """Yield a name for the socket that AF_UNIX can take, by way of /proc/self/fd if need be."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
