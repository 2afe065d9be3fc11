"""Where a client is: the network that holds its address, and how far around it that holds.

Routing methods that look at the client (subnet, performance, geographic) ask two things of an
address. Which of the configured networks is the most specific one that holds it? And, because a
resolver hands its answer on to others (RFC 7871), up to which prefix length would everybody get the
same? A `NetworkTable` answers both, from networks that are laid out once as a row of intervals:

* Each border is an address at which the decision changes; between two borders it is one and the
  same. A lookup is a bisection. Neighbours with the same decision are one interval.
* A scope is the shortest prefix around the client that crosses no border. A network with a hole
  is so taken apart around the hole ("deaggregated", RFC 7871 section 7.2.1), and it does not matter
  in which order caches ask.
* If a border goes through the network that the client is known by, the scope is longer than that:
  the longest that anybody in there needs. It tells the resolver how much to say next time.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Generic, TypeVar

from trafficmgr.core.noun import Noun

V = TypeVar("V")

MAPPED_BITS = 96
"""What an IPv4-mapped IPv6 address (::ffff:192.0.2.1) has before the IPv4 address, in bits."""

_FAMILIES = (32, 128)
"""The lengths of addresses: IPv4, IPv6, in bits."""


class ClientPlace(Noun):
    """What is known of a client, or of the network of clients that a resolver asks for.

    Attributes:
        address: 4 or 16 bytes. What lies beyond `prefix_len` is not looked at.
        prefix_len: How many bits of the address are known: all of it if the client asks by itself,
            the source prefix length of the client subnet option if a resolver says that.
        country: ISO 3166-1 alpha-2 in capitals, "" if unknown.
        continent: AF, AN, AS, EU, NA, OC or SA, "" if unknown.
        place_len: The prefix length within which country and continent hold, as databases of
            places say it; 0 is unknown: then they hold for `prefix_len` and no further.
    """

    address: bytes
    prefix_len: int
    country: str = ""
    continent: str = ""
    place_len: int = 0


def place_of(
    address: str, prefix_len: int | None = None, *, country: str = "", continent: str = ""
) -> ClientPlace:
    """Return the place of an address as text; without a prefix length all of it is known.

    What comes as an IPv4-mapped IPv6 address is an IPv4 client.

    Raises:
        ValueError: It is not an IP address.
    """
    found = ip_address(address)
    known = found.max_prefixlen if prefix_len is None else prefix_len
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None and known >= MAPPED_BITS:
        found, known = found.ipv4_mapped, known - MAPPED_BITS
    return ClientPlace(address=found.packed, prefix_len=known, country=country, continent=continent)


class NetworkTable(Generic[V]):
    """Networks of both families and what each stands for; the most specific one counts.

    Of a network that is given twice the later value counts. Bits of a network beyond its prefix
    length are not looked at.

    Raises:
        ValueError: A network can't be read.
    """

    __slots__ = ("_rows",)

    def __init__(self, networks: Iterable[tuple[str, V]]) -> None:
        spans: dict[int, list[tuple[int, int, V]]] = {bits: [] for bits in _FAMILIES}
        for text, value in networks:
            network = ip_network(text, strict=False)
            first = int(network.network_address)
            spans[network.max_prefixlen].append((first, int(network.broadcast_address), value))
        self._rows = {bits // 8: _Row(bits, spans[bits]) for bits in _FAMILIES}

    def __repr__(self) -> str:
        """Say how many intervals there are."""
        ipv4, ipv6 = (self._rows[bits // 8].size for bits in _FAMILIES)
        return f"NetworkTable({ipv4} intervals of IPv4, {ipv6} of IPv6)"

    def get(self, address: bytes) -> V | None:
        """Return what the most specific network of an address stands for; None: there is none.

        Raises:
            KeyError: The address has neither 4 nor 16 bytes.
        """
        return self._rows[len(address)].get(int.from_bytes(address, "big"))

    def find(self, address: bytes, prefix_len: int) -> tuple[V | None, int]:
        """Return what a client's network stands for, and the scope: how far that holds.

        Asked is the first address of the client's network. Within the scope of any address of the
        client's network all addresses get the same.

        Args:
            address: 4 or 16 bytes.
            prefix_len: How many bits of it are known.

        Raises:
            KeyError: The address has neither 4 nor 16 bytes.
        """
        return self._rows[len(address)].find(int.from_bytes(address, "big"), prefix_len)


class _Row(Generic[V]):
    """The intervals of one family of addresses.

    Interval `i` goes from `_borders[i]` to just before the next border. `_needed[0][i]` is the
    prefix length that tells the two sides of border `i` apart; `_needed[k][i]` is the largest of
    the 2**k of them from `i` on, so that the largest of any run is found in two steps.
    """

    __slots__ = ("_bits", "_borders", "_needed", "_values")

    def __init__(self, bits: int, spans: list[tuple[int, int, V]]) -> None:
        self._bits = bits
        changes = _merged(_changes(spans, end=1 << bits))
        self._borders = [border for border, _ in changes]
        self._values = [value for _, value in changes]
        apart = [bits - _trailing_zeros(border) for border in self._borders[1:]]
        self._needed = _largest_of_runs(bytes([0, *apart]))

    @property
    def size(self) -> int:
        return len(self._borders)

    def get(self, address: int) -> V | None:
        return self._values[bisect_right(self._borders, address) - 1]

    def find(self, address: int, prefix_len: int) -> tuple[V | None, int]:
        host_bits = self._bits - prefix_len
        first = address >> host_bits << host_bits
        index = bisect_right(self._borders, first) - 1
        last = bisect_right(self._borders, first | ((1 << host_bits) - 1), index) - 1
        if last > index:
            return self._values[index], self._largest(index + 1, last + 1)
        return self._values[index], self._scope(first, index)

    def _scope(self, address: int, index: int) -> int:
        """Return the length of the shortest prefix that keeps to the interval.

        It is one bit more than what the address has in common with its neighbours outside.
        """
        differs = self._bits + 1
        if index:
            differs = (address ^ (self._borders[index] - 1)).bit_length()
        if index + 1 < len(self._borders):
            differs = min(differs, (address ^ self._borders[index + 1]).bit_length())
        return self._bits + 1 - differs

    def _largest(self, start: int, stop: int) -> int:
        level = (stop - start).bit_length() - 1
        run = self._needed[level]
        return max(run[start], run[stop - (1 << level)])


def _changes(spans: Iterable[tuple[int, int, V]], end: int) -> Iterator[tuple[int, V | None]]:
    """Yield (first address, value from there on), in order; the last of one address counts.

    Networks are nested or apart, never across each other, so those that hold an address are a
    stack with the most specific one on top.
    """
    yield 0, None
    opened: list[tuple[int, V]] = []
    for first, last, value in sorted(spans, key=lambda span: (span[0], -span[1])):
        yield from _closed(opened, before=first)
        yield first, value
        opened.append((last, value))
    yield from _closed(opened, before=end)


def _closed(opened: list[tuple[int, V]], before: int) -> Iterator[tuple[int, V | None]]:
    """Take the networks that are over from the stack; yield what comes after each."""
    while opened and opened[-1][0] < before:
        last, _ = opened.pop()
        if last + 1 < before:
            yield last + 1, opened[-1][1] if opened else None


def _merged(changes: Iterable[tuple[int, V]]) -> list[tuple[int, V]]:
    """Return only changes that last, and that change something."""
    kept: list[tuple[int, V]] = []
    for border, value in changes:
        if kept and kept[-1][0] == border:
            kept.pop()
        if not kept or kept[-1][1] != value:
            kept.append((border, value))
    return kept


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _largest_of_runs(lengths: bytes) -> list[bytes]:
    """Return the largest of each run of 1, 2, 4, ... neighbours (a sparse table)."""
    levels = [lengths]
    width = 1
    while 2 * width <= len(lengths):
        below = levels[-1]
        levels.append(bytes(map(max, below, below[width:])))
        width *= 2
    return levels
