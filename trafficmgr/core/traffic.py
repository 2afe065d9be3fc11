"""How HTTP is served beside weights: what workers obey for one endpoint, and for all of them.

An `HttpPolicy` is part of an endpoint's table; it changes when the config does, or when an operator
holds the endpoint. A `Front` is what concerns connections before it is known whom they are for: it
goes to workers with the zones. Defaults carry their precedents in docs/behaviour.md.
"""

from enum import StrEnum

from trafficmgr.core.noun import Noun


class Balance(StrEnum):
    """Which target of a share is next."""

    round_robin = "round-robin"
    least_requests = "least-requests"


class PinTo(StrEnum):
    """Whom a pinned request goes to; stable if there is no candidate."""

    candidate = "candidate"
    stable = "stable"


class Pin(Noun):
    """A header or a cookie (exactly one) that decides, whatever the weights; "" is any value."""

    to: PinTo
    header: str = ""
    cookie: str = ""
    value: str = ""


class Ejection(Noun):
    """A target that fails so often in a row is passed over: `base_s`, twice as long each time.

    Failures are connects that failed, answers that broke off or came too late, and 5xx. Never
    more than half of a share's targets are passed over for it.
    """

    failures: int = 5
    base_s: float = 10.0
    longest_s: float = 300.0


class HttpPolicy(Noun):
    """How the proxy serves one endpoint. Times in seconds, sizes in bytes.

    `paths` are prefixes, whole segments; none is everything. `max_requests` is how many requests a
    target of a worker may have at once, `queue_limit` how many may wait for the groups of a
    revision, and `queue_s` for how long. While `is_held` requests wait for up to `hold_s` in place
    of being served, `hold_limit` of them.
    `affinity_name` is the cookie or header that clients are told apart by.
    """

    paths: tuple[str, ...] = ()
    balance: Balance = Balance.round_robin
    affinity_name: str = ""
    pins: tuple[Pin, ...] = ()
    ejection: Ejection | None = Ejection()
    retry_budget_pct: int = 20
    max_body_bytes: int | None = None
    connect_s: float = 3.0
    response_head_s: float = 60.0
    stream_idle_s: float = 300.0
    tunnel_idle_s: float = 3600.0
    drain_websocket_s: float = 600.0
    max_requests: int | None = None
    queue_limit: int = 100
    queue_s: float = 5.0
    is_held: bool = False
    hold_s: float = 30.0
    hold_limit: int = 1000
    redirects_to_https: bool = False


class AccessLog(Noun):
    """Where and how each request is written down; `format` is "json" or "combined"."""

    path: str
    format: str = "json"


class Certificate(Noun):
    """A certificate chain and its key, in PEM files that are read again when they change."""

    certificate: str
    key: str


class Front(Noun):
    """What concerns every connection. Times in seconds, sizes in bytes.

    `trusted_proxies` are networks whose word about a client is believed. `names_requests`: each
    request has an X-Request-Id, the client's own if it came by a trusted proxy. `has_via`: messages
    carry Via.
    """

    request_line_bytes: int = 8192
    head_bytes: int = 32768
    fields: int = 100
    head_s: float = 10.0
    idle_s: float = 75.0
    max_connections: int = 20000
    trusted_proxies: tuple[str, ...] = ()
    names_requests: bool = True
    has_via: bool = False
    access_log: AccessLog | None = None
    certificates: tuple[Certificate, ...] = ()
