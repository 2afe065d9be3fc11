"""Where the admin socket is, and how both ends reach it however long its path is.

AF_UNIX takes 107 bytes of path. A longer one goes through an open descriptor of the folder:
`/proc/self/fd/N/admin.sock` is short and means the same. Standard library only, because the
command line imports this page at every start.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NAME = "admin.sock"

MAX_PATH_BYTES = 107
"""`sun_path` of unix(7) is 108 bytes with its final zero."""


def socket_path(state_dir: Path) -> Path:
    """Return where the service of a state_dir listens for its operators."""
    return state_dir / NAME


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield a name for the path that AF_UNIX takes; it holds inside the block only.

    Raises:
        OSError: The folder can't be opened.
    """
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
