"""The lock on a pool of loopback addresses: two installations must not share one.

127.0.0.0/8 belongs to the network namespace, and so do abstract unix sockets: one is bound for
each /24 of the pool, for as long as the holder lives. That is a lock without a file, which can't be
left behind and needs no folder that all users may write to (unix(7), "abstract").
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network

from trafficmgr.runtimes.contract import RuntimeFailure

UNIT_PREFIX = 24


@contextmanager
def locked(address_pool: str) -> Iterator[None]:
    """Hold the pool until the context ends.

    Raises:
        RuntimeFailure: Another installation on this machine uses part of it.
    """
    pool = IPv4Network(address_pool)
    units = [pool] if pool.prefixlen >= UNIT_PREFIX else list(pool.subnets(new_prefix=UNIT_PREFIX))
    with ExitStack() as held:
        for unit in units:
            lock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            _bind(lock, unit.supernet(new_prefix=UNIT_PREFIX), pool)
        yield


def _bind(lock: socket.socket, unit: IPv4Network, pool: IPv4Network) -> None:
    try:
        lock.bind(f"\0trafficmgr-pool-{unit.network_address}")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise RuntimeFailure(
            f"embedded: another trafficmgr on this machine uses addresses of {unit}, so that this"
            f" one can't use address_pool {pool}. Workers serve what they know; no group is started"
            " or stopped. Give this installation another address_pool, or stop the other one."
        ) from None
