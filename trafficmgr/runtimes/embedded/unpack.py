"""Unpacks the layers of an image into a tree, and trusts none of them.

Rules (source: OCI image-spec v1.1, layer.md):

* Each layer's uncompressed stream must have the sha256 that the image's config names (diff_id).
* Symlinks are stored as they are. Where one stands in the place of a parent directory it is
  resolved by hand inside the tree (`inside.py`); the kernel never follows one for us.
* Refused, with a sentence that names the entry: `..`, absolute names, NULs, parents and hard links
  that lead out of the tree, devices and fifos, more entries or bytes than the limits.
* `.wh.NAME` removes NAME, `.wh..wh..opq` everything in its directory, of the layers below only.
* Modes are kept except setuid and setgid, always dropped: the tree lies on the host's file system,
  where they would give every local user the owner's rights. We keep access to what we own.
* No owners (process mode runs everything as one user), no extended attributes. Modification times
  of files are kept, because Python compares them with its compiled files.

No file is fsynced by itself; `trees.py` brings the whole tree to the disk at once.
"""

import errno
import os
import shutil
import stat
import tarfile
import threading
import zlib
from dataclasses import dataclass
from typing import IO, cast

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.runtimes.embedded import inside
from trafficmgr.runtimes.embedded.layers import LayerStream
from trafficmgr.wire.images import Layer

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
"""Other names with this start are bookkeeping of an old union file system (layer.md)."""
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}
_COPY_BYTES = 256 * 1024


class UnpackError(TrafficmgrError):
    """The image can't be unpacked; the text names the layer, the entry and the rule."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one image may have at most, all layers together."""

    entries: int = 500_000
    size_bytes: int = 20 * 1024**3


def unpack(
    layers: tuple[Layer, ...],
    root: str,
    *,
    limits: Limits | None = None,
    cancelled: threading.Event | None = None,
) -> None:
    """Apply the layers, lowest first, to the empty directory `root`. Blocks; use a thread.

    Raises:
        UnpackError: A layer breaks a rule of this page. What was unpacked so far stays.
        OSError: The disk is full or does not work, which is not the image's fault.
        UnpackCancelledError: `cancelled` was set meanwhile.
    """
    unpacker = _Unpacker(root, limits or Limits(), cancelled or threading.Event())
    try:
        for layer in layers:
            unpacker.apply(layer)
    finally:
        unpacker.tree.close()


class _Unpacker:
    """A tree in the making.

    `fresh` holds the real names that the layer at hand has put there.
    """

    def __init__(self, root: str, limits: Limits, cancelled: threading.Event) -> None:
        self.tree = inside.Tree(root)
        self.entries_left = limits.entries
        self.stream_left = limits.size_bytes
        self.content_left = limits.size_bytes  # sparse files have more content than stream
        self.limits = limits
        self.cancelled = cancelled
        self.fresh: set[tuple[str, ...]] = set()

    def apply(self, layer: Layer) -> None:
        self.fresh.clear()
        try:
            with LayerStream(
                layer, limit_bytes=self.stream_left, cancelled=self.cancelled
            ) as stream:
                self._apply_stream(stream)
                stream.finish()
                self.stream_left -= stream.tell()
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
            _raise_if_disks(error)
            raise UnpackError(f"layer {layer.digest} can't be unpacked: {error}") from error

    def _apply_stream(self, stream: LayerStream) -> None:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it remembers each one otherwise
                self._count(member)
                try:
                    self._place(tar, member)
                except (OSError, ValueError) as error:
                    _raise_if_disks(error)
                    raise ValueError(f'entry "{member.name}": {_why(error)}') from error

    def _count(self, member: tarfile.TarInfo) -> None:
        self.entries_left -= 1
        if self.entries_left < 0:
            raise ValueError(f"the image has more than {self.limits.entries} entries")
        self.content_left -= member.size
        if member.size < 0 or self.content_left < 0:
            raise ValueError(
                f'entry "{member.name}": the image has more than {self.limits.size_bytes} bytes'
            )

    def _place(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _checked(member.name)
        if not parts:
            return  # the root itself
        above = self.tree.real(parts[:-1], is_last_followed=True)
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._whiteout(above, name)
            return
        directory = self.tree.open(above, create=True)
        try:
            self._create(tar, member, directory, name)
        finally:
            os.close(directory)
        self._remember((*above, name))

    def _remember(self, path: tuple[str, ...]) -> None:
        while path and path not in self.fresh:
            self.fresh.add(path)
            path = path[:-1]

    # -- entries ----------------------------------------------------------------------------------

    def _create(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str
    ) -> None:
        if member.isdir():
            _make_directory(member, directory, name)
        elif member.isfile():
            _make_file(tar, member, directory, name)
        elif member.issym():
            _remove(directory, name)
            os.symlink(_without_nul(member.linkname), name, dir_fd=directory)
        elif member.islnk():
            self._make_link(member, directory, name)
        else:
            raise ValueError("devices, fifos and unknown types of entries are refused")

    def _make_link(self, member: tarfile.TarInfo, directory: int, name: str) -> None:
        parts = _checked(member.linkname)
        if not parts:
            raise ValueError("a hard link to the root")
        source = self.tree.open(self.tree.real(parts[:-1], is_last_followed=True))
        try:
            found = inside.lstat(parts[-1], source)
            if found is None or stat.S_ISDIR(found.st_mode):
                raise ValueError(f'a hard link to "{member.linkname}", which is no file')
            there = inside.lstat(name, directory)
            if there is not None and os.path.samestat(found, there):
                return
            _remove(directory, name)
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)

    # -- whiteouts --------------------------------------------------------------------------------

    def _whiteout(self, above: list[str], name: str) -> None:
        hidden = name.removeprefix(_WHITEOUT)
        if name != _OPAQUE and name.startswith(_AUFS):
            return
        if hidden in {"", ".", ".."}:
            raise ValueError("a whiteout that names nothing")
        try:
            directory = self.tree.open(above)
        except (FileNotFoundError, NotADirectoryError):
            return  # the layers below have nothing there
        try:
            for child in _names(directory) if name == _OPAQUE else [hidden]:
                self._hide(directory, (*above, child))
        finally:
            os.close(directory)

    def _hide(self, directory: int, path: tuple[str, ...]) -> None:
        """Remove what lower layers put at the path; keep what this layer did."""
        if path not in self.fresh:
            _remove(directory, path[-1])
        elif inside.is_directory(inside.lstat(path[-1], directory)):
            below = self.tree.open(list(path))
            try:
                for child in _names(below):
                    self._hide(below, (*path, child))
            finally:
                os.close(below)


def _checked(name: str) -> list[str]:
    """Return the components of an entry's name; raises ValueError for one that is refused."""
    if _without_nul(name).startswith("/"):
        raise ValueError(f'the absolute name "{name}" is refused')
    parts = inside.components(name)
    if ".." in parts:
        raise ValueError(f'".." in the name "{name}" is refused')
    return parts


def _names(directory: int) -> list[str]:
    return os.listdir(directory)


def _without_nul(name: str) -> str:
    if "\0" in name:
        raise ValueError("a name with a NUL in it is refused")
    return name


def _raise_if_disks(error: Exception) -> None:
    """Raise an error that is the disk's and not the image's."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        raise error


def _why(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _make_directory(member: tarfile.TarInfo, directory: int, name: str) -> None:
    if not inside.is_directory(inside.lstat(name, directory)):
        _remove(directory, name)
        os.mkdir(name, 0o700, dir_fd=directory)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    os.fchmod(fd, member.mode & 0o1777 | 0o700)
    os.close(fd)


def _make_file(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str) -> None:
    _remove(directory, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101  a regular file has content
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb", buffering=0) as file:
        shutil.copyfileobj(content, file, _COPY_BYTES)
        os.fchmod(file.fileno(), member.mode & 0o777 | 0o400)
        os.utime(file.fileno(), (member.mtime, member.mtime))


def _remove(directory: int, name: str) -> None:
    """Remove whatever has this name, if anything."""
    found = inside.lstat(name, directory)
    if inside.is_directory(found):
        shutil.rmtree(name, dir_fd=directory)
    elif found is not None:
        os.unlink(name, dir_fd=directory)
