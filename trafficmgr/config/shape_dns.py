"""The shape of `dns`: how it is answered, beside zones and endpoints (see `shape`)."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from trafficmgr.config.mapping import AlsoAlone, Shape, defaults, or_switch
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import Flag, Network, PerSecond, PositiveDuration, ServerName, Slip
from trafficmgr.config.units import shown
from trafficmgr.core.dns_policy import LOOPBACK, RateLimits

_LIMITS = defaults(RateLimits)


class ChaosShape(Shape):
    """What is answered to those who ask what server this is (class CH); by default REFUSED."""

    version: ServerName = ""
    """To version.bind and version.server."""
    hostname: ServerName = ""
    """To hostname.bind."""
    id: ServerName = ""
    """To id.server."""


class RateLimitShape(Shape):
    """How many answers a network (/24, or /56 of IPv6) gets each second over UDP."""

    responses: PerSecond = _LIMITS["responses_per_s"]
    """Answers of one name; 0 is no limit."""
    nxdomains: PerSecond = _LIMITS["nxdomains_per_s"]
    """"No such name" in one zone."""
    errors: PerSecond = _LIMITS["errors_per_s"]
    """Errors, all together."""
    window: PositiveDuration = _LIMITS["window_s"]
    """For how long what was not used may be used later."""
    slip: Slip = _LIMITS["slip"]
    """Which of the answers beyond are sent truncated; 2: every second one, 0: none."""
    exempt: list[Network] = list(LOOPBACK)
    """Networks without a limit."""

    @model_validator(mode="after")
    def _lets_something_through(self) -> Self:
        for key in ("responses", "nxdomains", "errors"):
            per_s = getattr(self, key)
            if per_s and per_s * self.window < 1:
                hint = f"write window: {shown(1 / per_s)} or more, or 0 {key} for no limit"
                raise UnfitError(f"lets not even one of its {key} through", hint, ("window",))
        return self


class DnsShape(Shape):
    """How DNS is answered, whatever it is asked for."""

    cookies: Flag = True
    """Whether clients get a cookie that shows that their address is their own (RFC 7873)."""
    nsid: ServerName = ""
    """What this server calls itself to those who ask which one answered (RFC 5001)."""
    chaos: Annotated[ChaosShape, Field(examples=[{"version": "trafficmgr"}])] = ChaosShape()
    """What is answered to version.bind and the like."""
    rate_limit: Annotated[
        RateLimitShape | None,
        BeforeValidator(or_switch),
        AlsoAlone(type="boolean"),
        Field(examples=[{"responses": 200}]),
    ] = RateLimitShape()
    """How much one network gets over UDP; `false` is no limit."""
