"""The shape of `http`, `tls` and `affinity`: how the proxy serves (see `shape`).

There are two `http`: that of an endpoint is how its requests are served, that of the file concerns
connections before it is known whom they are for. What must hold between these and the rest of the
file is in `checks_http` and `checks_hosts`.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from trafficmgr.config.mapping import AlsoAlone, Shape, chosen, defaults, or_switch
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import (
    Clients,
    CookieName,
    FieldCount,
    FieldName,
    FieldValue,
    Flag,
    HeadSize,
    Network,
    PathPrefix,
    PathText,
    Percent,
    PositiveDuration,
    Requests,
    Size,
    Waiting,
)
from trafficmgr.config.units import shown
from trafficmgr.core.model import Affinity
from trafficmgr.core.traffic import AccessLog, Ejection, Front, HttpPolicy

_POLICY = defaults(HttpPolicy)
_EJECTION = defaults(Ejection)
_FRONT = defaults(Front)


class AffinityShape(Shape):
    """What clients are told apart by: a word of ours, or one of `cookie`, `header`."""

    # its key is one that no file has, and editors are not shown it
    alone: SkipJsonSchema[Literal["none", "client"] | None] = Field(default=None, alias="[alone]")
    cookie: CookieName | None = None
    """The cookie by which clients are told apart; who has none gets it from the proxy."""
    header: FieldName | None = None
    """The request header by which clients are told apart."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.alone is None:
            chosen(self, "cookie", "header", add="cookie: visitor, or write none or client")
        return self

    @property
    def kind(self) -> Affinity:
        """What the core calls it."""
        if self.alone is not None:
            return Affinity(self.alone)
        return Affinity.header if self.cookie is None else Affinity.cookie


class QueueShape(Shape):
    """How requests wait that no target may have yet."""

    limit: Waiting = _POLICY["queue_limit"]
    """How many may wait in a worker; the next one is refused."""
    timeout: PositiveDuration = _POLICY["queue_s"]
    """How long one may wait before it is refused."""


class HoldShape(Shape):
    """How requests wait after `trafficmgr hold`."""

    timeout: PositiveDuration = _POLICY["hold_s"]
    """How long one may wait before it is refused."""
    limit: Waiting = _POLICY["hold_limit"]
    """How many may wait in a worker; the next one is refused."""


class EjectionShape(Shape):
    """When a target is passed over for a while because it fails."""

    failures: Requests = _EJECTION["failures"]
    """How many failures in a row it takes."""
    base: PositiveDuration = _EJECTION["base_s"]
    """How long the first time; then twice as long each time."""
    longest: PositiveDuration = _EJECTION["longest_s"]
    """How long at most."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.longest < self.base:
            raise UnfitError(
                "is less than base", f"write {shown(self.base)} or more", at=("longest",)
            )
        return self


class PinShape(Shape):
    """Requests that go to one revision whatever the weights: by one of `header`, `cookie`."""

    header: FieldName | None = None
    """The request header that decides."""
    cookie: CookieName | None = None
    """The cookie that decides."""
    value: FieldValue | None = None
    """What it must be; by default anything."""
    to: Annotated[Literal["candidate", "stable"], Field(examples=["candidate"])]
    """Where they go; to stable if there is no candidate."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "header", "cookie", add="header: x-preview, or cookie: preview")
        return self


def _each_once(paths: list[str]) -> list[str]:
    """Return the prefixes if none is there twice."""
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise UnfitError(f'has "{path}" twice', "remove one of them", at=(index,))
    return paths


class HttpPolicyShape(Shape):
    """How the proxy serves the requests of an endpoint."""

    paths: Annotated[
        list[PathPrefix], AfterValidator(_each_once), Field(min_length=1, examples=[["/api"]])
    ] = []
    """Only paths that begin with one of these, in whole segments; by default all."""
    balance: Literal["round-robin", "least-requests"] = _POLICY["balance"].value
    """Which target of a revision gets the next request."""
    max_body: Size | None = None
    """The largest body of a request; by default any."""
    connect_timeout: PositiveDuration = _POLICY["connect_s"]
    """How long a connection to a target may take."""
    response_timeout: PositiveDuration = _POLICY["response_head_s"]
    """How long an answer may take to begin."""
    stream_idle: PositiveDuration = _POLICY["stream_idle_s"]
    """How long a body may stand still."""
    tunnel_idle: PositiveDuration = _POLICY["tunnel_idle_s"]
    """How long a WebSocket or another tunnel may be silent."""
    max_requests: Requests | None = None
    """How many requests of a worker a target may have at once; by default any number."""
    queue: QueueShape = QueueShape()
    """How requests wait that are too many for all targets."""
    hold: HoldShape = HoldShape()
    """How requests wait after `trafficmgr hold`."""
    retry_budget: Percent = _POLICY["retry_budget_pct"] / 100
    """How many retries there may be for each hundred requests; only what is safe is retried."""
    ejection: Annotated[
        EjectionShape | None,
        BeforeValidator(or_switch),
        AlsoAlone(type="boolean"),
        Field(examples=[{"failures": 5}]),
    ] = EjectionShape()
    """When a target that fails is passed over; `false` never."""
    redirect_https: Flag = _POLICY["redirects_to_https"]
    """Whether plain requests are sent to https."""
    pins: Annotated[
        list[PinShape], Field(examples=[[{"header": "x-preview", "to": "candidate"}]])
    ] = []
    """Requests that go to one revision, whatever the weights; the first that fits decides."""

    @model_validator(mode="after")
    def _waits_for_something(self) -> Self:
        if "queue" in self.model_fields_set and self.max_requests is None:
            hint = "add max_requests: 100, above which requests wait, or remove it"
            raise UnfitError(
                "is for nobody: without max_requests no request waits", hint, ("queue",)
            )
        return self


class AccessLogShape(Shape):
    """Where each request is written down."""

    path: PathText
    """The file, which every worker adds to; it is begun anew when it was moved away."""
    format: Literal["json", "combined"] = defaults(AccessLog)["format"]
    """`json`: an object a line. `combined`: as Apache and nginx write it."""


class FrontShape(Shape):
    """What concerns every HTTP connection."""

    request_line: HeadSize = _FRONT["request_line_bytes"]
    """The longest request line."""
    head: HeadSize = _FRONT["head_bytes"]
    """The longest header section."""
    fields: FieldCount = _FRONT["fields"]
    """How many header fields a request may have."""
    head_timeout: PositiveDuration = _FRONT["head_s"]
    """How long a request may take to arrive up to the end of its header section."""
    idle: PositiveDuration = _FRONT["idle_s"]
    """How long a connection is kept for the next request."""
    max_connections: Clients = _FRONT["max_connections"]
    """How many clients may be connected to each worker."""
    trusted_proxies: list[Network] = []
    """Networks whose word about a client is believed; from all others it is replaced."""
    request_id: Flag = _FRONT["names_requests"]
    """Whether each request has an X-Request-Id."""
    via: Flag = _FRONT["has_via"]
    """Whether messages carry Via."""
    access_log: Annotated[AccessLogShape | None, Field(examples=[{"path": "./access.log"}])] = None
    """Where each request is written down; by default nowhere."""


class CertificateShape(Shape):
    """A certificate and its key, in PEM files that are read again when they change."""

    certificate: Annotated[PathText, Field(examples=["./apps.pem"])]
    """The file of the certificate, and below it those that lead to its root."""
    key: Annotated[PathText, Field(examples=["./apps.key"])]
    """The file of its private key, without a password."""


class TlsShape(Shape):
    """What `listen.https` proves who it is with."""

    certificates: Annotated[
        list[CertificateShape],
        Field(min_length=1, examples=[[{"certificate": "./apps.pem", "key": "./apps.key"}]]),
    ]
    """The certificates; the host that a client asks for says which, and the first is for others."""
