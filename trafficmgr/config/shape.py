"""The shape of the YAML file: which keys there are, what they take, what they mean.

One class per mapping: here the file, its services and endpoints; a group's are in `shape_group`,
a rollout's in `shape_rollout`. The text under a key is its documentation, and the JSON Schema for
editors is made from these pages, so a key is described here once. Defaults that the core decides
by are taken from the core. What concerns more than one mapping is in `checks`; what the values mean
inside is in `translate`. What a single value takes is in `scalars`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trafficmgr.config.mapping import AlsoAlone, Shape, chosen, defaults, or_alone
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import (
    Count,
    DnsName,
    DockerHost,
    Duration,
    Flag,
    HostName,
    Ip,
    Listen,
    Mailbox,
    Name,
    PathText,
    PauseImage,
    Pool,
    Port,
    PositiveDuration,
    Registry,
    SecretName,
    Ttl,
    Variable,
    Workers,
    worker_count,
)
from trafficmgr.config.settings import KEEP_LOGS_S, UpdatePolicy
from trafficmgr.config.shape_dns import DnsShape
from trafficmgr.config.shape_group import GroupShape
from trafficmgr.config.shape_http import (
    AffinityShape,
    FrontShape,
    HttpPolicyShape,
    TlsShape,
)
from trafficmgr.config.shape_rollout import RolloutShape
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import EndpointSettings

_ENDPOINT = defaults(EndpointSettings)
_KINDS = ["embedded", "docker"]
_AFFINITIES = ["none", "client"]
_ALONE = AffinityShape.model_fields["alone"].alias or ""
_NO_AFFINITY = AffinityShape.model_validate({_ALONE: _ENDPOINT["affinity"].value})


class UpdateShape(Shape):
    """How a new image is noticed."""

    policy: Literal["digest"] = "digest"
    """`digest`: whatever the tag points to now."""
    every: PositiveDuration = UpdatePolicy().every_s
    """How often to ask the registry, with some jitter."""


class DrainShape(Shape):
    """How long the last clients of a withdrawn group may take."""

    http: Duration = _ENDPOINT["drain_http_s"]
    """For requests, and for clients that connect to the group directly."""
    websocket: Duration = _ENDPOINT["drain_websocket_s"]
    """For WebSockets and other tunnels."""


class EndpointShape(Shape):
    """A public name and its traffic policy."""

    hosts: Annotated[list[HostName], Field(min_length=1, examples=[["shop.apps.test"]])]
    """The DNS names and HTTP hosts that it answers to; *.apps.test is all with that one label."""
    ttl: Ttl = _ENDPOINT["ttl_s"]
    """The TTL of its DNS answers, in whole seconds; 0s lets nobody cache them."""
    ttl_grace: Duration = _ENDPOINT["ttl_grace_s"]
    """How much longer than the TTL a withdrawn address is still served."""
    publish: Literal["proxy", "groups"] = "proxy"
    """What DNS answers: the proxy's address, or the groups' own."""
    affinity: Annotated[
        AffinityShape,
        BeforeValidator(or_alone(_ALONE)),
        AlsoAlone(enum=_AFFINITIES, default=_ENDPOINT["affinity"].value),
    ] = _NO_AFFINITY
    """What a client is known by that stays with its revision: `client` is by its address."""
    http: Annotated[HttpPolicyShape, Field(examples=[{"balance": "least-requests"}])] = (
        HttpPolicyShape()
    )
    """How the proxy serves its requests."""
    port: Port | None = None
    """The container port that gets the traffic; by default the only one."""
    group: Annotated[
        GroupShape,
        Field(examples=[{"containers": [{"name": "web", "image": "shop/web", "ports": [8080]}]}]),
    ]
    """What runs."""
    update: UpdateShape = UpdateShape()
    """How a new image is noticed."""
    rollout: RolloutShape = RolloutShape()
    """How it moves to a new revision."""
    drain: DrainShape = DrainShape()
    """How long the last clients of an old group may take."""
    max_revisions: Annotated[int, Field(strict=True, ge=2, le=100, examples=[3])] = _ENDPOINT[
        "max_revisions"
    ]
    """How many revisions may exist at once, with those that drain."""


class ZoneShape(Shape):
    """A DNS zone that trafficmgr is authoritative for."""

    name: DnsName
    """The zone's name."""
    ns: Annotated[list[DnsName], Field(min_length=1, examples=[["ns1.apps.test"]])]
    """Its name servers; those inside the zone are answered with the advertised addresses."""
    mailbox: Mailbox = ""
    """Who answers for the zone; by default hostmaster@ the zone."""


class RegistryShape(Shape):
    """How to talk to one registry."""

    username: Annotated[str, Field(min_length=1, examples=["ci"])] | None = None
    """The user to log in as; without it, docker's own config.json is asked."""
    password_file: PathText | None = None
    """The file that holds the password or token."""
    insecure: Flag = False
    """Whether plain http is allowed; on loopback it always is."""


class RuntimeShape(Shape):
    """The engine that runs the groups: its kind, which may stand alone, and where it is."""

    kind: Annotated[Literal["embedded", "docker"], Field(examples=["docker"])]
    """`embedded`: plain processes, no Docker and no root. `docker`: containers."""
    host: DockerHost | None = None
    """Where the Docker engine answers; by default DOCKER_HOST, or /var/run/docker.sock."""
    pause_image: PauseImage | None = None
    """The image of the container that holds a group's network; by default our own."""

    @model_validator(mode="after")
    def _is_dockers(self) -> Self:
        for key in ("host", "pause_image"):
            if self.kind != "docker" and getattr(self, key) is not None:
                hint = "remove it, or write kind: docker"
                raise UnfitError("belongs to the Docker runtime", hint, at=(key,))
        return self


class SecretShape(Shape):
    """Where the value of a secret is read from when a group starts: one of `file`, `env`."""

    file: PathText | None = None
    """A file of trafficmgr's host; as a variable, without the line end at its end."""
    env: Variable | None = None
    """A variable of trafficmgr's own environment."""

    @model_validator(mode="before")
    @classmethod
    def _is_no_value(cls, data: Any) -> Any:  # noqa: ANN401  YAML holds anything
        if isinstance(data, dict):
            return data
        hint = "write {file: /run/secrets/token} or {env: TOKEN}; a value has no place here"
        raise UnfitError("does not say where its value is read from", hint)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "file", "env", add="file: /run/secrets/token, or env: TOKEN")
        return self


class ListenShape(Shape):
    """The addresses of the data plane."""

    dns: list[Listen] = []
    """Where DNS is answered, over UDP and TCP."""
    http: list[Listen] = []
    """Where HTTP is proxied."""
    https: list[Listen] = []
    """Where HTTP over TLS is proxied, with the certificates of `tls`."""


class FileShape(Shape):
    """A configuration of trafficmgr."""

    state_dir: PathText = "./state"
    """Where the journal, tables, images and logs are kept."""
    listen: ListenShape = ListenShape()
    """The addresses of the data plane."""
    tls: Annotated[
        TlsShape | None,
        Field(examples=[{"certificates": [{"certificate": "./apps.pem", "key": "./apps.key"}]}]),
    ] = None
    """What `listen.https` proves who it is with."""
    http: Annotated[FrontShape, Field(examples=[{"idle": "75s"}])] = FrontShape()
    """What concerns every HTTP connection, whoever it is for."""
    dns: Annotated[DnsShape, Field(examples=[{"nsid": "node-1"}])] = DnsShape()
    """How DNS is answered, whatever it is asked for."""
    advertise: list[Ip] = []
    """What DNS answers for `publish: proxy`; by default the HTTP and HTTPS listen addresses."""
    address_pool: Pool | None = None
    """The network that groups get addresses from: 127.77.0.0/16; with Docker 10.213.0.0/16."""
    workers: Workers = Field(default_factory=lambda: worker_count("auto"))
    """How many data-plane processes run; `auto` is one for each CPU that may be used."""
    runtime: Annotated[
        RuntimeShape, BeforeValidator(or_alone("kind")), AlsoAlone(enum=_KINDS, default="embedded")
    ] = RuntimeShape(kind="embedded")
    """What runs the groups: `embedded` (plain processes) or `docker`."""
    keep_logs: Duration = KEEP_LOGS_S
    """How long the logs of groups that are gone are kept; 0s keeps none."""
    fence: PositiveDuration = _ENDPOINT["fence_s"]
    """How long a worker may take to acknowledge a table before it is restarted."""
    max_concurrent: Count = defaults(Fleet)["max_concurrent"]
    """How many endpoints may have a rollout under way at once; the others wait their turn."""
    zones: list[ZoneShape] = []
    """The DNS zones that are answered."""
    registries: dict[Registry, RegistryShape] = {}
    """Registries that need credentials or plain http."""
    secrets: Annotated[
        dict[SecretName, SecretShape],
        Field(examples=[{"token": {"file": "/run/secrets/token"}}]),
    ] = {}
    """Where the values are read from that `value_from` and secret volumes name."""
    endpoints: dict[Name, EndpointShape] = Field(examples=[{"shop": {"hosts": ["shop.apps.test"]}}])
    """The endpoints, by name."""
