"""How the `docker` package reaches the engine's socket, put right in two places.

Its own adapter has a pool of connections for each URL, so one stays open for each container that
was ever asked about, and none is used a second time. And a connection that could not be made is
left to the garbage collector, once for each call while the engine is away.
"""

import socket
from typing import Any

from docker.transport.unixconn import (
    UnixHTTPAdapter,
    UnixHTTPConnection,
    UnixHTTPConnectionPool,
)

_CONNECTIONS = 4
"""As many as there are threads that call (`engine.py`)."""
SCHEME = "http+docker://"
"""What the package asks for, whatever the engine's address is."""


class _Connection(UnixHTTPConnection):
    """A connection that is closed if it can't be made."""

    def connect(self) -> None:
        """Connect, or leave nothing open."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.settimeout(self.timeout)
            peer.connect(self.unix_socket)
        except OSError:
            peer.close()
            raise
        self.sock = peer


class _Pool(UnixHTTPConnectionPool):
    """Connections to one socket."""

    def __init__(self, path: str, timeout_s: int) -> None:
        """Connect as often as there are calls at once."""
        super().__init__("http://localhost", path, timeout_s, maxsize=_CONNECTIONS)
        self._path = path
        self._timeout_s = timeout_s

    def _new_conn(self) -> _Connection:  # type: ignore[override]  # the package has it so too
        return _Connection("http://localhost", self._path, self._timeout_s)


class EngineAdapter(UnixHTTPAdapter):
    """Has one pool for all that is asked."""

    def __init__(self, path: str, timeout_s: int) -> None:
        """Reach the socket at this path."""
        super().__init__(f"http+unix://{path}", timeout_s)
        self._pool = _Pool(path, timeout_s)

    def get_connection(
        self,
        url: str | bytes,  # noqa: ARG002  the point of it
        proxies: Any = None,  # noqa: ANN401, ARG002  as the package has it
    ) -> UnixHTTPConnectionPool:
        """Return the one pool, whatever is asked for."""
        return self._pool

    def close(self) -> None:
        """Close the connections that are not in use; the others are closed after it."""
        super().close()
        self._pool.close()
