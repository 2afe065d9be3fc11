"""The store of unpacked images: one read-mostly tree per platform digest.

`store/trees/HEX/` holds `rootfs/` and `image.json`, the image's config. It is renamed into its
place when it is whole and on the disk, so what is there can be used as it is, without the
registry: a rollback does not depend on it. All groups of an image share its tree.
"""

import asyncio
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.embedded.files import sync_disk, write_file
from trafficmgr.runtimes.embedded.unpack import Limits, UnpackError, unpack
from trafficmgr.wire.images import ImageConfig, LocalImage

Pull = Callable[[ImageDigest], Awaitable[LocalImage]]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HALF_DONE = ".unpacking-"


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


def _sweep(folder: Path) -> None:
    """Remove what unpackers left that were killed."""
    for half in folder.glob(f"{_HALF_DONE}*"):
        pid = half.name.removeprefix(_HALF_DONE).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(half, ignore_errors=True)
