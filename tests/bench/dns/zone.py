"""What all servers serve: one zone, and weighted names in it.

Each name has four addresses of each family that it has. Three are those of a stable revision and
share 90 % of the answers, the last is the candidate's and has 10 %.
"""

from dataclasses import dataclass

APEX = "bench.test"
SERVER = "ns1.bench.test"
SERVER_ADDRESS = "192.0.2.53"
TTL_S = 10
NEGATIVE_TTL_S = 5

WEIGHTS = (30, 30, 30, 10)
"""Of the addresses of a name, in order. The last one is the candidate."""

CANDIDATE_PCT = WEIGHTS[-1]


@dataclass(frozen=True)
class Host:
    """A weighted name; nothing is ever sent to its addresses. `v6` may be empty."""

    name: str
    v4: tuple[str, ...]
    v6: tuple[str, ...] = ()


def hosts(count: int, *, is_dual: bool = False) -> list[Host]:
    """Return so many names with addresses of their own.

    Args:
        count: How many.
        is_dual: Whether every second one has IPv6 addresses too.
    """
    return [_host(number, has_v6=is_dual and number % 2 == 0) for number in range(count)]


def _host(number: int, *, has_v6: bool) -> Host:
    numbers = [number * len(WEIGHTS) + place + 1 for place in range(len(WEIGHTS))]
    return Host(
        f"shop-{number}.{APEX}",
        tuple(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in numbers),
        tuple(f"2001:db8::{n:x}" for n in numbers) if has_v6 else (),
    )
