"""How a client's connection ends, so that the client can tell what it got.

A connection that is closed with input unread would be reset by the kernel, which can destroy the
last answer on its way: it lingers, reading and dropping, until the client has closed its side, too.
An answer that broke off must never look complete; where its end is that of the connection, there is
a reset in place of an end.
"""

import asyncio
import socket
import struct

LINGER_S = 2.0
LINGER_BYTES = 1024 * 1024
"""How long and how much is read and dropped after the last answer. nginx 5 s."""

_AT_ONCE = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection at once with a reset (socket(7), SO_LINGER)."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
