"""The network that groups get their addresses from: which ones fit which runtime.

Process mode puts each group on a loopback address. A Docker engine gets a network of its own for
us, which has to be private, or it would hide hosts that somebody wants to reach.
"""

import ipaddress
from typing import Literal

from trafficmgr.config.problems import UnfitError

DEFAULTS = {"embedded": "127.77.0.0/16", "docker": "10.213.0.0/16"}
"""Kind of runtime -> pool. 10.213 is far from what docker (172.17 and up), home routers and
clusters (10.0, 10.42, 10.96, 10.244) take by default."""

LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
PRIVATE = tuple(
    ipaddress.IPv4Network(written)
    for written in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598
        "198.18.0.0/15",  # RFC 2544, tests
    )
)

_LONGEST_PREFIX = 24
_SHORTEST_PREFIX = 16
_HINT = f"write {DEFAULTS['embedded']}, or with Docker {DEFAULTS['docker']}"


def pool(value: object) -> str:
    """Return an IPv4 network from a /24 to a /16, on loopback or private.

    Raises:
        UnfitError: It is none.
    """
    if not isinstance(value, str) or not value.isprintable():
        raise UnfitError("is not a network", _HINT)
    try:
        network = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        raise UnfitError("is not an IPv4 network", _HINT) from None
    if not any(network.subnet_of(one) for one in (LOOPBACK, *PRIVATE)):
        raise UnfitError("is neither on loopback nor private", _HINT)
    _check_size(network)
    if ipaddress.IPv4Address("127.0.0.1") in network:
        raise UnfitError("contains 127.0.0.1, which others listen on", "write 127.77.0.0/16")
    if str(network) != value:
        raise UnfitError("is an address inside a network", f"write {network}")
    return value


def is_loopback(written: str) -> bool:
    """Whether a pool is on loopback."""
    return ipaddress.IPv4Network(written).subnet_of(LOOPBACK)


def network_of(kind: Literal["embedded", "docker"], written: str | None) -> ipaddress.IPv4Network:
    """Return the network of a pool, or the runtime's own if none is written."""
    return ipaddress.IPv4Network(written or DEFAULTS[kind])


def usable(network: ipaddress.IPv4Network) -> int:
    """Return how many groups a pool has addresses for (core/fleet.py gives them out).

    Nobody gets the last but one, which is Docker's gateway, nor an address that ends in 0 or 255:
    there is software that takes it for a network's own, or for broadcast.
    """
    return network.num_addresses - 2 * (network.num_addresses // 256) - 1


def _check_size(network: ipaddress.IPv4Network) -> None:
    if network.prefixlen > _LONGEST_PREFIX:
        fitting = network.supernet(new_prefix=_LONGEST_PREFIX)
        raise UnfitError("has fewer than 256 addresses", f"write {fitting} or a larger one")
    if network.prefixlen < _SHORTEST_PREFIX:
        usual = DEFAULTS["embedded" if network.subnet_of(LOOPBACK) else "docker"]
        raise UnfitError("keeps more than 65536 addresses from others", f"write {usual}")
