"""Files that are replaced whole, and sockets whose path is too long.

Standard library only: the command line takes the second one from here, by way of admin/address.py,
at every start.
"""

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
    """Yield a name for the socket that AF_UNIX can take; it holds inside the block only.

    A path that is too long goes through an open descriptor of its folder: `/proc/self/fd/N/NAME`
    is short and means the same.

    Raises:
        OSError: The folder can't be opened.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
