"""A layer as a stream of tar bytes: decompressed, hashed and bounded while it is read.

The sha256 that counts (diff_id) is over the whole uncompressed stream, padding included; so
whoever reads must call `finish` at the end.
"""

import gzip
import hashlib
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from trafficmgr.wire.images import Layer

_GZIP_TYPES = ("tar+gzip", "tar.gzip")
"""The ends of the media types of OCI and of Docker."""
_MAX_READ_BYTES = 4 * 1024 * 1024
"""tarfile reads a header's extension (long names, attributes) as a whole; real ones are below
1 MiB. A larger one is an attempt at our memory."""


class UnpackCancelledError(Exception):
    """Nobody wants the tree any more."""


class LayerStream:
    """Looks like a file to tarfile, as far as tarfile's reading needs it: it only goes forward."""

    def __init__(self, layer: Layer, *, limit_bytes: int, cancelled: threading.Event) -> None:
        """Open the layer.

        Args:
            layer: The blob, verified against its digest.
            limit_bytes: Refuse a stream that is longer.
            cancelled: Once it is set, reading raises UnpackCancelledError.

        Raises:
            ValueError: It is compressed in a way that is not supported.
        """
        self._layer = layer
        self._limit = limit_bytes
        self._cancelled = cancelled
        self._file = _opened(layer)
        self._hash = hashlib.sha256()
        self._position = 0
        self._last_read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        if self._cancelled.is_set():
            raise UnpackCancelledError
        if size > _MAX_READ_BYTES:
            raise ValueError(f"a header of {size} bytes is refused")
        data = self._file.read(size)
        self._position += len(data)
        if self._position > self._limit:
            raise ValueError(f"the image has more than {self._limit} bytes left to it")
        self._hash.update(data)
        self._last_read = data
        return data

    def tell(self) -> int:
        """Return the position in the uncompressed stream."""
        return self._position

    def seek(self, position: int) -> int:
        """Skip to the position."""
        if position < self._position:
            raise ValueError("the tar stream can't be read backwards")
        while self._position < position:
            if not self.read(min(position - self._position, _MAX_READ_BYTES)):
                break
        return self._position

    def finish(self) -> None:
        """Read what is left and check the hash.

        Raises:
            ValueError: The entries ended in something that is no end, or the hash differs.
        """
        if self._last_read.strip(b"\0"):
            raise ValueError(
                f"what stands before byte {self._position} is no header of a tar entry"
            )
        while self.read(_MAX_READ_BYTES):
            pass
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._layer.diff_id:
            raise ValueError(
                f"its content has the hash {found}, the image's config says {self._layer.diff_id}"
            )


def _opened(layer: Layer) -> IO[bytes]:
    if layer.media_type.endswith(_GZIP_TYPES):
        return cast("IO[bytes]", gzip.open(layer.path, "rb"))
    if layer.media_type.endswith("tar"):
        return Path(layer.path).open("rb")
    kind = layer.media_type.rpartition("+")[2]
    raise ValueError(
        f'it is compressed by "{kind}", only gzip and plain tar are supported; '
        "build the image with gzip layers"
    )
