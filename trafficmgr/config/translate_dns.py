"""From the shape of `dns` to what workers obey (see `translate`)."""

from trafficmgr.config.shape_dns import DnsShape, RateLimitShape
from trafficmgr.core.dns_policy import ChaosNames, CookiePolicy, DnsPolicy, RateLimits


def dns_policy_of(shape: DnsShape) -> DnsPolicy:
    """Return how DNS is answered, but for the secret of cookies, which is in no config."""
    chaos = shape.chaos
    return DnsPolicy(
        chaos=ChaosNames(version=chaos.version, hostname=chaos.hostname, id=chaos.id),
        nsid=shape.nsid,
        cookies=CookiePolicy(is_on=shape.cookies),
        rates=None if shape.rate_limit is None else _rates(shape.rate_limit),
    )


def _rates(shape: RateLimitShape) -> RateLimits:
    return RateLimits(
        responses_per_s=shape.responses,
        nxdomains_per_s=shape.nxdomains,
        errors_per_s=shape.errors,
        window_s=shape.window,
        slip=shape.slip,
        exempt_networks=tuple(shape.exempt),
    )
