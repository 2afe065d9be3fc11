"""The store of unpacked images: one read-mostly tree per platform digest.

`store/trees/HEX/` holds `rootfs/` and `image.json`, the image's config. It is renamed into its
place when it is whole and on the disk, so what is there can be used as it is, without the
registry: a rollback does not depend on it. All groups of an image share its tree.

A tree that nobody needs any more is renamed out of its place before its files go, so that half a
tree is never seen. Giving out, unpacking and putting aside the same one take turns, and a start
holds its trees (`in_use`) until its group is written down.
"""

import asyncio
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import ImagesRemoved, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded.files import remove_tree, sync_disk, sync_names, write_file
from trafficmgr.runtimes.embedded.threads import to_its_end
from trafficmgr.runtimes.embedded.unpack import Limits, UnpackError, unpack
from trafficmgr.wire.images import ImageConfig, LocalImage

Pull = Callable[[ImageDigest], Awaitable[LocalImage]]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HALF_DONE = ".unpacking-"
_ASIDE = ".gone-"
_BLOCK_BYTES = 512
"""What st_blocks counts, whatever the file system (stat(2))."""


class Tree(Noun):
    """An unpacked image: where its files are, and what it says about running it."""

    rootfs: str
    config: ImageConfig


class Trees:
    """Gives out trees, pulling and unpacking what is not there yet."""

    def __init__(self, folder: Path, pull: Pull, limits: Limits | None = None) -> None:
        self._folder = folder
        self._pull = pull
        self._limits = limits or Limits()
        self._flights: dict[str, asyncio.Lock] = {}
        self._uses: Counter[str] = Counter()

    @contextmanager
    def in_use(self, images: Iterable[ImageDigest]) -> Iterator[None]:
        """Let no tree of these images go: a group is being made of them that nobody knows yet."""
        digests = [image.platform_digest for image in images]
        self._uses.update(digests)
        try:
            yield
        finally:
            self._uses -= Counter(digests)

    async def keep(
        self, digests: frozenset[str], run: Callable[[], frozenset[str]]
    ) -> ImagesRemoved:
        """Remove all trees but those of these digests, of starts under way, and of groups.

        Args:
            digests: The platform digests of images that may be needed again.
            run: Returns those of all groups that are written down; called in a thread.

        Raises:
            OSError: The disk does not work. Errors of `run` pass through as they are.
        """
        for digest in await asyncio.to_thread(self._there):
            if digest in digests:
                continue
            async with self._flights.setdefault(digest, asyncio.Lock()):
                if not self._uses[digest]:  # asked first: a start lets go when its group is there
                    await to_its_end(self._put_aside, digest, run)
        return await asyncio.to_thread(self._remove_aside)

    async def get(self, image: ImageDigest) -> Tree:
        """Return the tree of the image; who asks meanwhile waits for the same unpacking.

        If the one who unpacks is cancelled, the next who waits begins again.

        Raises:
            RuntimeFailure: It can't be unpacked. Errors of `pull` pass through as they are.
            RuntimeUnknownError: The disk is full or does not work.
        """
        place = self._folder / _hex(image)
        async with self._flights.setdefault(image.platform_digest, asyncio.Lock()):
            tree = await asyncio.to_thread(_read, place)
            if tree is not None:
                return tree
            local = await self._pull(image)
            try:
                return await self._unpack(local, place)
            except UnpackError as error:
                raise RuntimeFailure(
                    f"embedded: cannot unpack {image.repository}@{image.platform_digest}: {error}. "
                    "Nothing of it was kept, and traffic stays where it is. Build the image again."
                ) from error
            except OSError as error:
                raise RuntimeUnknownError(
                    f"embedded: cannot unpack {image.repository}@{image.platform_digest} below "
                    f"{self._folder}: {error}. Nothing of it was kept, and traffic stays where it "
                    "is. Make room or access there; it is tried again."
                ) from error

    def _there(self) -> list[str]:
        names = (path.name for path in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(d for d in (f"sha256:{name}" for name in names) if _DIGEST.fullmatch(d))

    def _put_aside(self, digest: str, run: Callable[[], frozenset[str]]) -> None:
        if digest not in run():
            aside = self._folder / f"{_ASIDE}{uuid.uuid4().hex}"
            (self._folder / digest.removeprefix("sha256:")).rename(aside)

    def _remove_aside(self) -> ImagesRemoved:
        """Remove what was put aside, now or by a controller that was killed meanwhile."""
        found = tuple(self._folder.glob(f"{_ASIDE}*"))
        if found:
            sync_names(self._folder)  # or a crash could bring back the name, but not the files
        size_bytes = sum(_size_bytes(path) for path in found)
        for path in found:
            remove_tree(path)
        return ImagesRemoved(images=len(found), size_bytes=size_bytes)

    async def _unpack(self, local: LocalImage, place: Path) -> Tree:
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(self._make, local, place, cancelled)
        finally:
            cancelled.set()  # if we were cancelled the thread must hear of it

    def _make(self, local: LocalImage, place: Path, cancelled: threading.Event) -> Tree:
        self._folder.mkdir(parents=True, exist_ok=True)
        _sweep(self._folder)
        half = Path(tempfile.mkdtemp(prefix=f"{_HALF_DONE}{os.getpid()}-", dir=self._folder))
        try:
            half.chmod(0o755)
            rootfs = half / "rootfs"
            rootfs.mkdir()
            unpack(local.layers, str(rootfs), limits=self._limits, cancelled=cancelled)
            write_file(half / "image.json", msgspec.json.encode(local.config))
            sync_disk(half)
            _settle(half, place)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        return Tree(rootfs=str(place / "rootfs"), config=local.config)


def _hex(image: ImageDigest) -> str:
    if not _DIGEST.fullmatch(image.platform_digest):
        raise RuntimeFailure(
            f'embedded: cannot run {image.repository}: "{image.platform_digest}" is no sha256 '
            "digest. Traffic stays where it is. Ask the registry again."
        )
    return image.platform_digest.removeprefix("sha256:")


def _settle(half: Path, place: Path) -> None:
    """Rename the finished tree into its place, unless another one is there by now."""
    try:
        half.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _read(place: Path) -> Tree | None:
    try:
        config = msgspec.json.decode((place / "image.json").read_bytes(), type=ImageConfig)
    except (OSError, msgspec.DecodeError):  # if it matters, unpacking will fail, too
        return None
    return Tree(rootfs=str(place / "rootfs"), config=config)


def _size_bytes(tree: Path) -> int:
    """Return the room that a tree takes on the disk; what can't be looked into counts as none."""
    return sum(
        os.lstat(os.path.join(path, name)).st_blocks * _BLOCK_BYTES  # noqa: PTH118  100,000 files
        for path, _, names in os.walk(tree)
        for name in names
    )


def _sweep(folder: Path) -> None:
    """Remove what unpackers left that were killed."""
    for half in folder.glob(f"{_HALF_DONE}*"):
        pid = half.name.removeprefix(_HALF_DONE).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(half, ignore_errors=True)
