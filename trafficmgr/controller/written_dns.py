"""How DNS is answered, as people would write it, key by key (see `written`)."""

from collections.abc import Iterator

from trafficmgr.config.units import shown
from trafficmgr.core.dns_policy import DnsPolicy, RateLimits


def dns_policy(given: DnsPolicy) -> Iterator[tuple[str, str]]:
    """Yield the keys of `dns`."""
    yield "dns.cookies", "true" if given.cookies.is_on else "false"
    yield "dns.nsid", given.nsid
    yield "dns.chaos.version", given.chaos.version
    yield "dns.chaos.hostname", given.chaos.hostname
    yield "dns.chaos.id", given.chaos.id
    yield "dns.rate_limit", "false" if given.rates is None else _rates(given.rates)


def _rates(given: RateLimits) -> str:
    counts = f"{given.responses_per_s} responses, {given.nxdomains_per_s} nxdomains"
    times = f"{given.errors_per_s} errors per second, window {shown(given.window_s)}"
    return f"{counts}, {times}, slip {given.slip}, exempt {', '.join(given.exempt_networks)}"
