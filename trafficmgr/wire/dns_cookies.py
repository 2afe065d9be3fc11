"""DNS cookies: a client that shows one of ours has its address from nobody but itself.

What for: a query over UDP may come from anywhere, so that answers flood whom the sender names. A
cookie says that an answer of ours has reached this address before; rate limits are for the others.

The server cookie is the interoperable one of RFC 9018: a version, three reserved bytes, when it was
made, and SipHash-2-4 over these and the client's cookie and address. Nothing is remembered here,
and any server with the same secret makes and knows the same cookies.

Costs: 9 us for a fresh cookie (12 us for IPv6), and as much for each secret that one is tried with:
27 us for a forged one, if there is a previous secret. Clients repeat theirs for half an hour, so
that a caller may want to remember what it was told.

Sources: RFC 7873 sections 4 and 5; RFC 9018; Aumasson and Bernstein, "SipHash: a fast short-input
PRF" (2012).
"""

import struct
from enum import Enum
from hmac import compare_digest
from typing import NamedTuple

from trafficmgr.core.noun import Noun
from trafficmgr.wire.dns_query import COOKIE

CLIENT_BYTES = 8
SERVER_BYTES = 16
SECRET_BYTES = 16
MIN_BYTES, MAX_BYTES = 16, 40
"""Of an option with both cookies (RFC 7873 section 4); others' servers may have longer ones."""

VERSION = 1

MAX_AGE_S = 3600
MAX_AHEAD_S = 300
RENEWED_AFTER_S = 1800
"""RFC 9018 section 4.3, for all three: clocks of servers that share a secret may differ."""

_OPTION_HEAD = struct.pack(">HH", COOKIE, CLIENT_BYTES + SERVER_BYTES)
_MADE = struct.Struct(">B3xI")  # version, reserved, when it was made
_MADE_BYTES = _MADE.size
_STAMP = struct.Struct(">4xI")

_KEY = struct.Struct("<QQ")
_WORD = struct.Struct("<Q")
_WORD_BYTES = _WORD.size
_MASK = 2**64 - 1


class Secrets(Noun):
    """What cookies are made with, of 16 bytes each; whoever knows it can pass for any client.

    Workers of one address share them: a client's next query may reach another. A new secret takes
    the place of `newest`, which becomes `previous` and is believed for `MAX_AGE_S` more.

    Raises:
        ValueError: One of them has another length.
    """

    newest: bytes
    previous: bytes | None = None

    def __post_init__(self) -> None:
        for secret in (self.newest, self.previous):
            if secret is not None and len(secret) != SECRET_BYTES:
                raise ValueError(f"a secret for DNS cookies has 16 bytes, not {len(secret)}")

    def __repr__(self) -> str:
        return "Secrets(...)"  # they would end in a log


class Standing(Enum):
    """What a COOKIE option is worth, in the order of RFC 7873 section 5.2."""

    malformed = "malformed"
    client_only = "client_only"
    invalid = "invalid"
    """With a server cookie that is stale, or not ours, or of another address."""
    valid = "valid"


class Cookie(NamedTuple):
    """What to make of a query's COOKIE option.

    Attributes:
        standing: `malformed` is answered with FORMERR, `valid` knows no rate limit.
        option: What goes into the reply's OPT, with code and length; empty if malformed.
    """

    standing: Standing
    option: bytes


_MALFORMED = Cookie(Standing.malformed, b"")


def answered(option: bytes, client: bytes, secrets: Secrets, now_s: int) -> Cookie:
    """Judge a query's COOKIE option, and make the one for the reply.

    A valid cookie comes back as it was, unless it is older than `RENEWED_AFTER_S` or was made with
    the previous secret.

    Args:
        option: The option's data, without code and length.
        client: The address that the query came from: 4 bytes, also if it is mapped into IPv6, or
            16. The port plays no part.
        secrets: The workers' secrets.
        now_s: Seconds since 1970, as other servers with this secret count them.
    """
    mine = option[:CLIENT_BYTES]
    if len(option) == CLIENT_BYTES:
        return Cookie(Standing.client_only, _fresh(mine, client, secrets, now_s))
    if not MIN_BYTES <= len(option) <= MAX_BYTES:
        return _MALFORMED
    shown = option[CLIENT_BYTES:]
    age_s = _age_s(shown, now_s)
    if age_s is not None and -MAX_AHEAD_S <= age_s <= MAX_AGE_S:
        if _is_made_with(secrets.newest, mine, shown, client):
            is_young = age_s <= RENEWED_AFTER_S
            kept = _OPTION_HEAD + option if is_young else _fresh(mine, client, secrets, now_s)
            return Cookie(Standing.valid, kept)
        if secrets.previous and _is_made_with(secrets.previous, mine, shown, client):
            return Cookie(Standing.valid, _fresh(mine, client, secrets, now_s))
    return Cookie(Standing.invalid, _fresh(mine, client, secrets, now_s))


def _fresh(mine: bytes, client: bytes, secrets: Secrets, now_s: int) -> bytes:
    """Return the option for a client cookie, with a server cookie that is made now."""
    made = _MADE.pack(VERSION, now_s % 2**32)
    return _OPTION_HEAD + mine + made + siphash24(secrets.newest, mine + made + client)


def _age_s(shown: bytes, now_s: int) -> int | None:
    """Return how old a server cookie says it is; None if it is of another kind than ours.

    Times are serial numbers (RFC 1982): from 2106 on they begin anew.
    """
    if len(shown) != SERVER_BYTES or shown[0] != VERSION:
        return None
    (made_at,) = _STAMP.unpack_from(shown)
    age_s: int = (now_s - made_at) % 2**32
    return age_s if age_s < 2**31 else age_s - 2**32


def _is_made_with(secret: bytes, mine: bytes, shown: bytes, client: bytes) -> bool:
    """Whether a server cookie was made with a secret; reserved bytes count as they came."""
    made, proof = shown[:_MADE_BYTES], shown[_MADE_BYTES:]
    return compare_digest(siphash24(secret, mine + made + client), proof)


# -- SipHash --------------------------------------------------------------------------------------


def siphash24(key: bytes, message: bytes) -> bytes:
    """Return SipHash-2-4, 8 bytes in the paper's order (little-endian).

    8.5 us for 20 bytes, 1.5 us for each 8 more. The standard library has it for its own hash tables
    only, in another strength and with a key of its own.

    Args:
        key: 16 bytes.
        message: Any length.
    """
    low, high = _KEY.unpack(key)
    v0, v1 = low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D
    v2, v3 = low ^ 0x6C7967656E657261, high ^ 0x7465646279746573
    length = len(message)
    padded = message + bytes(_WORD_BYTES - 1 - length % _WORD_BYTES) + bytes((length & 0xFF,))
    for (word,) in _WORD.iter_unpack(padded):
        v0, v1, v2, v3 = _two_rounds(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v0, v1, v2, v3 = _two_rounds(v0, v1, v2 ^ 0xFF, v3)
    v0, v1, v2, v3 = _two_rounds(v0, v1, v2, v3)
    return _WORD.pack(v0 ^ v1 ^ v2 ^ v3)


def _two_rounds(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    """Return the state after two SipRounds, 1.5 us.

    Written out, and cut to 64 bits only where more would do harm: a sum is cut before it is shifted
    right, what is turned by 32 bits only after the sum that it goes into.
    """
    v0 = (v0 + v1) & _MASK
    v1 = (v1 << 13 | v1 >> 51) & _MASK ^ v0
    v2 = (v2 + v3) & _MASK
    v3 = (v3 << 16 | v3 >> 48) & _MASK ^ v2
    v0 = ((v0 << 32 | v0 >> 32) + v3) & _MASK
    v3 = (v3 << 21 | v3 >> 43) & _MASK ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = (v1 << 17 | v1 >> 47) & _MASK ^ v2

    v0 = (v0 + v1) & _MASK
    v1 = (v1 << 13 | v1 >> 51) & _MASK ^ v0
    v2 = ((v2 << 32 | v2 >> 32) + v3) & _MASK
    v3 = (v3 << 16 | v3 >> 48) & _MASK ^ v2
    v0 = ((v0 << 32 | v0 >> 32) + v3) & _MASK
    v3 = (v3 << 21 | v3 >> 43) & _MASK ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = (v1 << 17 | v1 >> 47) & _MASK ^ v2
    return v0, v1, (v2 << 32 | v2 >> 32) & _MASK, v3
