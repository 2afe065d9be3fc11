"""How DNS is served beside zones and weights: what workers obey for all endpoints.

What concerns strangers: how much one network gets (`RateLimits`), how a client proves that its
address is its own (`CookiePolicy`), and what a server says of itself when asked (`ChaosNames`).
"""

from trafficmgr.core.noun import Noun


class RateLimits(Noun):
    """How many answers of one kind a client's network gets over UDP, so that nobody is flooded.

    Per second, with credit for `window_s` that were not used; 0 is no limit. `responses_per_s`
    holds for each name, for "no such type" in each zone and for each delegation, `nxdomains_per_s`
    for each zone, `errors_per_s` for all errors together. Of the answers beyond the limit every
    `slip`-th is sent truncated (0 none, 1 each), the others not at all.

    200 per second is NSD's default: resolvers ask again after a TTL, and ours are short. Slip,
    prefixes and window are BIND's. Nobody needs many errors; resolvers keep NXDOMAIN for as long as
    the SOA says.
    """

    responses_per_s: int = 200
    nxdomains_per_s: int = 50
    errors_per_s: int = 20
    window_s: float = 15.0
    slip: int = 2
    ipv4_prefix: int = 24
    ipv6_prefix: int = 56
    exempt_networks: tuple[str, ...] = ()


class CookiePolicy(Noun):
    """Whether clients are given DNS cookies; who comes with a valid one has no rate limit."""

    is_on: bool = True


class ChaosNames(Noun):
    """What is answered to version.bind, hostname.bind and id.server (class CH); "" is REFUSED.

    See: RFC 4892; what a server tells of itself is its operator's choice.
    """

    version: str = ""
    hostname: str = ""
    id: str = ""


LOOPBACK = ("127.0.0.0/8", "::1/128")


class DnsPolicy(Noun):
    """What workers obey for all of DNS.

    Attributes:
        nsid: What tells this server apart from others with its address (RFC 5001); "" is nothing.
        cookie_secret: What cookies are derived from, the same for all workers; b"" gives none out.
        rates: None is no limit.
    """

    chaos: ChaosNames = ChaosNames()
    nsid: str = ""
    cookies: CookiePolicy = CookiePolicy()
    cookie_secret: bytes = b""
    rates: RateLimits | None = RateLimits(exempt_networks=LOOPBACK)
