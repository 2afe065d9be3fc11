"""Files that are replaced as a whole (write, fsync, rename), and folders that are removed."""

import ctypes
import os
import shutil
import tempfile
from pathlib import Path


def write_file(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Replace the file atomically. Blocks on the disk, for some ms if it shall be durable."""
    fd, half = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(fd)
        Path(half).replace(path)
    except OSError:
        Path(half).unlink(missing_ok=True)
        raise


def sync_disk(folder: Path) -> None:
    """Make everything durable that was written to the folder's file system (syncfs(2)).

    Raises:
        OSError: Something of it could not be written.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def sync_names(folder: Path) -> None:
    """Make durable which names are in the folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there.

    An application may have made folders that their owner can't enter; they are opened first.

    Raises:
        OSError: Something could not be removed.
    """
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        folder.chmod(0o700)
        for path, names, _ in os.walk(folder):
            for below in (Path(path, name) for name in names):
                if not below.is_symlink():
                    below.chmod(0o700)
        shutil.rmtree(folder)
