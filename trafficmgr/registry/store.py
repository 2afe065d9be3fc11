"""Images on this machine's disk: a folder of blobs, each named by the sha256 of its content.

Only content that was hashed ever gets its name: it is written under `partial/`, checked, flushed
to the disk, renamed, and the folder flushed. So a name that exists is right, whatever was killed
when. The store has one owner, the controller, which throws away what an earlier one left half done.

The disk is touched in one thread of the store's own: a slow disk never stops the probes, and what
was cancelled half way is over before its clean-up begins.
"""

import asyncio
import contextlib
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from trafficmgr.wire.oci import digest_of, is_digest

CHUNK_BYTES = 1024 * 1024
"""How much is hashed and written at a time: one change of threads per MiB."""

_T = TypeVar("_T")


class WrongContentError(ValueError):
    """What was written does not have the digest or the size that it must have."""


class BlobWriter:
    """Writes one blob. `commit` gives it its name; `close` without it throws it away.

    The disk is not touched before the first write, so that making one can't fail or leave a file.
    """

    def __init__(self, partial: Path, final: Path, digest: str, size: int | None) -> None:
        self._partial = partial
        self._final = final
        self._digest = digest
        self._size = size
        self._hash = hashlib.sha256()
        self._written = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def write(self, chunk: bytes | bytearray) -> None:
        """Append to the blob.

        Raises:
            WrongContentError: It is larger than it must be.
            OSError: The disk would not take it.
        """
        self._written += len(chunk)
        if self._size is not None and self._written > self._size:
            raise WrongContentError(f"more than the {self._size} bytes that it must have")
        self._hash.update(chunk)
        self._opened().write(chunk)

    def commit(self) -> None:
        """Check the content and give it its name.

        Raises:
            WrongContentError: It is not what it must be.
            OSError: The disk would not take it.
        """
        if self._size is not None and self._written != self._size:
            raise WrongContentError(f"{self._written} bytes where {self._size} must be")
        if f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise WrongContentError(f"content that hashes to sha256:{self._hash.hexdigest()}")
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        self._partial.replace(self._final)
        _flush_folder(self._final.parent)

    def close(self) -> None:
        """Let go of the file; without `commit` nothing of it is left."""
        if self._file is not None:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("xb")
        return self._file


class BlobStore:
    """The folder. `root` is created when it is first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="blobs")

    def close(self) -> None:
        """End the thread, once it has cleaned up."""
        self._thread.shutdown(wait=True)

    def path(self, digest: str) -> Path:
        """Return where the content with this digest is, or would be.

        Raises:
            ValueError: It is no digest, and must not become a path.
        """
        if not is_digest(digest):
            raise ValueError(f'"{digest}" is no sha256 digest')
        return self._blobs / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether the content is here."""
        return self.path(digest).is_file()

    def writer(self, digest: str, size: int | None = None) -> BlobWriter:
        """Return a context in which a blob can be written.

        Args:
            digest: What its content must hash to.
            size: How many bytes it must have; None if that is not known.
        """
        return BlobWriter(self._partial / uuid.uuid4().hex, self.path(digest), digest, size)

    def sweep(self) -> None:
        """Throw away what an earlier owner left half written."""
        with contextlib.suppress(FileNotFoundError):
            for left in self._partial.iterdir():
                left.unlink(missing_ok=True)

    async def digests(self) -> frozenset[str]:
        """Return what is here, whole.

        Raises:
            OSError: The folder can't be read.
        """
        return await self._in_thread(self._digests)

    async def remove(self, digest: str) -> int:
        """Remove a blob and return how many bytes it had; 0 if it was not here.

        Raises:
            OSError: The disk would not do it.
        """
        return await self._in_thread(lambda: _remove(self.path(digest)))

    async def read(self, digest: str) -> bytes | None:
        """Return a small blob whole, or None if it is not here.

        Raises:
            OSError: It is here and can't be read.
        """
        return await self._in_thread(lambda: _read(self.path(digest)))

    async def put(self, body: bytes) -> str:
        """Keep a small blob and return its digest.

        Raises:
            OSError: The disk would not take it.
        """
        digest = digest_of(body)
        await self._in_thread(lambda: self._put(digest, body))
        return digest

    async def save(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep a large blob as it arrives.

        Raises:
            WrongContentError: It is not what it must be; nothing of it is kept.
            OSError: The disk would not take it.
        """
        writer = self.writer(digest, size)
        pending = bytearray()
        try:
            async for chunk in chunks:
                pending += chunk
                if len(pending) >= CHUNK_BYTES:
                    await self._hand_over(writer, pending)
                    pending = bytearray()
            await self._hand_over(writer, pending)
            await self._in_thread(writer.commit)
        finally:
            # last in the thread's queue, and not awaited: we may be here because of a cancel
            self._thread.submit(writer.close)

    async def _hand_over(self, writer: BlobWriter, chunk: bytearray) -> None:
        await self._in_thread(lambda: writer.write(chunk))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _digests(self) -> frozenset[str]:
        found = self._blobs.iterdir() if self._blobs.is_dir() else ()
        return frozenset(d for d in (f"sha256:{path.name}" for path in found) if is_digest(d))

    def _put(self, digest: str, body: bytes) -> None:
        if self.has(digest):
            return
        with self.writer(digest, len(body)) as writer:
            writer.write(body)
            writer.commit()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove(path: Path) -> int:
    try:
        size_bytes = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size_bytes


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
