"""Response rate limiting: how many answers of one kind a client's network gets over UDP.

What for: who sends queries in another's name has our answers sent there. One network therefore gets
`RateLimits` per second of each kind of answer, and what was not used for `window_s` as credit.

* A kind is what an attacker can have repeated: the answers of a name; "no such type", or "no such
  name", of a zone, whatever was asked for there; a delegation; errors, all together.
* Beyond the limit every `slip`-th answer is sent truncated, the first one too, and the others not
  at all. It is hardly longer than its query, which makes it useless for a flood, and a client that
  is really there asks again over TCP. A truncated error says nothing: errors slip as they are.
* TCP and valid cookies prove an address. Callers don't ask for them.

BIND gives one second's credit, and what a network asks beyond puts it into debt, for a window at
most. Here there is credit for a window and no debt: bursts are served, and a network in whose name
others ask still gets its share of whole answers.

Each account is one point in time: when all that was spent will have come back (GCRA, also called
virtual scheduling). Once that is past, the account may be forgotten. There are two generations of
them, and when the younger is full, the older is dropped: who asks all the time is in the younger.

Sources: ISC-TN-2012-1 (Vixie and Schryver); BIND's `rate-limit`; ITU-T I.371 (the algorithm).
"""

from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from trafficmgr.core.dns_policy import RateLimits

MAX_ENTRIES = 100_000
"""Accounts, 22 MB with all of them over their limits (BIND has 20,000, NSD a million)."""

MAX_CLIENTS = 20_000
"""Addresses whose network is remembered. Beyond are forged ones, and all are forgotten."""

_ROUNDING_S = 1e-6
"""What sums of steps may be off by; less than any step worth setting."""

_POSITIVE, _NODATA, _NXDOMAIN, _REFERRAL, _ERROR = range(5)


class Verdict(Enum):
    """What becomes of an answer."""

    answer = "answer"
    slip = "slip"
    drop = "drop"


ANSWER, SLIP, DROP = Verdict.answer, Verdict.slip, Verdict.drop
"""The same, as names that cost nothing to look up."""


# -- kinds of answers, each made once and kept with its answer -------------------------------------

ERROR = bytes((_ERROR,))
"""FORMERR, REFUSED, SERVFAIL and the like, whatever was asked; these slip as they are."""


def positive(name: bytes) -> bytes:
    """Return the kind of a name's own answers, of all types (wire format, lower case)."""
    return bytes((_POSITIVE,)) + name


def nodata(zone: bytes) -> bytes:
    """Return the kind of "no such type" in a zone."""
    return bytes((_NODATA,)) + zone


def nxdomain(zone: bytes) -> bytes:
    """Return the kind of "no such name" in a zone, where names can be made up without end."""
    return bytes((_NXDOMAIN,)) + zone


def referral(cut: bytes) -> bytes:
    """Return the kind of answers that lead to the servers of a name, and what is below it."""
    return bytes((_REFERRAL,)) + cut


# -- accounts -------------------------------------------------------------------------------------


class Rates:
    """Accounts of all networks, and whether they pay for one more answer.

    `slipped` and `dropped` count what was not answered in full, since the start.

    Args:
        limits: How much is given.
        max_entries: How many accounts there are at most; 2 or more.

    Raises:
        ValueError: There is a limit that lets nothing through, or a network is none.
    """

    __slots__ = (
        "_credit_s",
        "_ipv4",
        "_ipv6",
        "_networks",
        "_old",
        "_over",
        "_slip",
        "_steps",
        "_young",
        "_young_limit",
        "dropped",
        "slipped",
    )

    def __init__(self, limits: RateLimits, *, max_entries: int = MAX_ENTRIES) -> None:
        per_s = (limits.responses_per_s, limits.nxdomains_per_s, limits.errors_per_s)
        responses, nxdomains, errors = (_step_s(each, limits.window_s) for each in per_s)
        self._steps = (responses, responses, nxdomains, responses, errors)  # by kind
        self._credit_s = limits.window_s + _ROUNDING_S
        self._slip = limits.slip
        networks = [ip_network(network, strict=False) for network in limits.exempt_networks]
        self._ipv4 = _family(96 + limits.ipv4_prefix, [n for n in networks if n.version == 4])  # noqa: PLR2004  IPv4
        self._ipv6 = _family(limits.ipv6_prefix, [n for n in networks if n.version == 6])  # noqa: PLR2004  IPv6
        self._networks: dict[str, bytes] = {}
        self._young_limit = max_entries // 2
        self._young: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}
        self._over: dict[bytes, int] = {}
        self.slipped = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Return how many accounts there are; one that is in both generations is two."""
        return len(self._young) + len(self._old)

    def judge(self, client: str, kind: bytes, now: float) -> Verdict:
        """Say what becomes of an answer, and charge the client's network for it.

        0.3 us where nothing is limited, 0.4 us beyond the limit, 1.8 us for an address that is
        new; each time that a generation is dropped, 2 ms.

        Args:
            client: Address as the socket gives it.
            kind: What is answered; made by one of the functions above.
            now: Seconds on a clock that never goes back.
        """
        network = self._networks.get(client)
        if network is None:
            network = self._learn(client)
        if not network:
            return ANSWER
        key = network + kind
        back_at = self._young.get(key)
        if back_at is None:
            back_at = self._rejuvenated(key)
        if back_at < now:  # noqa: PLR1730  max() is a call, a fifth of all this
            back_at = now
        back_at += self._steps[kind[0]]
        if back_at - now > self._credit_s:
            return self._refuse(key)
        self._young[key] = back_at
        return ANSWER

    def _refuse(self, key: bytes) -> Verdict:
        """Count an answer beyond the limit: every `slip`-th of an account slips, the first too."""
        if self._slip:
            turn = self._over.get(key, 0)
            self._over[key] = (turn + 1) % self._slip
            if turn == 0:
                self.slipped += 1
                return SLIP
        self.dropped += 1
        return DROP

    def _rejuvenated(self, key: bytes) -> float:
        """Return an account of the older generation, or a new one, as one of the younger.

        The turns of slips are forgotten with a generation: at worst a truncated answer too many.
        """
        if len(self._young) >= self._young_limit:
            self._old = self._young
            self._young = {}
            self._over.clear()
        back_at = self._old.get(key, 0.0)
        self._young[key] = back_at
        return back_at

    def _learn(self, client: str) -> bytes:
        """Remember and return the network of a client; empty if it is exempt."""
        if len(self._networks) >= MAX_CLIENTS:
            self._networks.clear()
        number = _number(client)
        family = self._ipv4 if number >> 32 == _MAPPED else self._ipv6
        network = self._networks[client] = family.network_of(number)
        return network


def _step_s(per_s: int, window_s: float) -> float:
    """Return how long it takes to earn one answer; 0 if there is no limit."""
    if per_s == 0:
        return 0.0
    if per_s * window_s < 1:
        raise ValueError(f"{per_s} answers per second for {window_s} s are not even one")
    return 1 / per_s


# -- networks -------------------------------------------------------------------------------------

_ADDRESS_BITS, _ADDRESS_BYTES = 128, 16
_MAPPED = 0xFFFF
"""::ffff:0:0/96, what an IPv6 socket shows IPv4 as (RFC 4291 section 2.5.5.2)."""


class _Family(NamedTuple):
    """What is one network, and which are exempt, as masks and what remains under them."""

    mask: int
    exempt: tuple[tuple[int, int], ...]

    def network_of(self, number: int) -> bytes:
        """Return the network of an address; empty if it is exempt."""
        for mask, network in self.exempt:
            if number & mask == network:
                return b""
        return (number & self.mask).to_bytes(_ADDRESS_BYTES, "big")


def _family(prefix_bits: int, exempt: list[IPv4Network | IPv6Network]) -> _Family:
    masks = [
        (_mask(network.prefixlen + _ADDRESS_BITS - network.max_prefixlen), str(network[0]))
        for network in exempt
    ]
    return _Family(_mask(prefix_bits), tuple((mask, _number(first)) for mask, first in masks))


def _mask(prefix_bits: int) -> int:
    return (1 << _ADDRESS_BITS) - (1 << (_ADDRESS_BITS - prefix_bits))


def _number(address: str) -> int:
    """Return an address of either family as 128 bits, without its zone."""
    if ":" in address:
        return int.from_bytes(inet_pton(AF_INET6, address.partition("%")[0]), "big")
    return _MAPPED << 32 | int.from_bytes(inet_pton(AF_INET, address), "big")
