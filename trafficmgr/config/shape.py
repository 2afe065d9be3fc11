"""The shape of the YAML file: which keys there are, what they take, what they mean.

One class per mapping. The text under a key is its documentation, and the JSON Schema for editors
is made from this page, so a key is described here once. Defaults that the core decides by are
taken from the core. What concerns more than one mapping is in `checks`; what the values mean
inside is in `translate`.
"""

import os
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from trafficmgr.config import names, units
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.settings import Address, UpdatePolicy
from trafficmgr.core.model import ContainerTemplate, EndpointSettings, Probe, Step

DEFAULT_POOL = "127.77.0.0/16"
MAX_WORKERS = 256
ALL_PCT = 100


def _text(example: str, **more: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example], **more})


def _defaults(noun: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.default for field in msgspec.structs.fields(noun)}


def _workers(value: object) -> int:
    """Return a number of workers; `auto` is one for each CPU that we may use."""
    if value == "auto":
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS:
        return value
    raise UnfitError(
        "is not a number of workers", f"write auto, or a number from 1 to {MAX_WORKERS}"
    )


def _env_value(value: object) -> str:
    """Return a variable's value. A boolean could mean yes, True or 1, so its text is asked for."""
    if isinstance(value, str) and "\0" not in value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UnfitError("is not text", 'write it in quotes: "{written}"')


def _variable(value: object) -> str:
    if not isinstance(value, str) or not value or "=" in value or not value.isprintable():
        raise UnfitError("is not the name of a variable", "write a name such as GREETING")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UnfitError("is not a path", "write a path such as ./state")
    if value.startswith("~"):
        raise UnfitError("starts with ~, which is not expanded", "write the whole path")
    return value


def _working_dir(value: object) -> str:
    path = _path(value)
    if not path.startswith("/") or ".." in path.split("/"):
        raise UnfitError("is not an absolute path", "write a path inside the image, such as /app")
    return path


def _url_path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise UnfitError("is not a path", "write a path such as /healthz")
    if not value.isascii() or not value.isprintable() or " " in value or "#" in value:
        raise UnfitError("has characters that a request can't carry", "write them as %20 and so on")
    return value


def _argument(value: object) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise UnfitError("is not text", 'write it in quotes: "{written}"')


def _rising(steps: "list[StepShape]") -> "list[StepShape]":
    """Return the steps if each gives the candidate more than the one before."""
    for index, (one, other) in enumerate(pairwise(steps), 1):
        if other.weight <= one.weight:
            raise UnfitError(
                f"is not more than the {one.weight} of the step before",
                "weights rise from step to step",
                at=(index, "weight"),
            )
    return steps


def _weight(value: object) -> int:
    if value == ALL_PCT:
        raise UnfitError("is 100", "remove this step: 100 comes by itself after the last one")
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < ALL_PCT:
        return value
    raise UnfitError("is not a weight", "write a whole number of per cent, 1 to 99")


Duration = Annotated[
    float, PlainValidator(units.duration), _text("10s", pattern=units.DURATION_PATTERN)
]
PositiveDuration = Annotated[
    float, PlainValidator(units.positive_duration), _text("10s", pattern=units.DURATION_PATTERN)
]
Ttl = Annotated[int, PlainValidator(units.ttl), _text("10s", pattern=units.DURATION_PATTERN)]
Size = Annotated[int, PlainValidator(units.size), _text("256MiB", pattern=units.SIZE_PATTERN)]
Name = Annotated[str, PlainValidator(names.name), _text("web", pattern=names.NAME_PATTERN)]
DnsName = Annotated[str, PlainValidator(names.dns_name), _text("shop.apps.test")]
Mailbox = Annotated[str, PlainValidator(names.mailbox), _text("hostmaster@apps.test")]
Image = Annotated[
    names.Image, PlainValidator(names.image), _text("registry.example.com/shop/web:stable")
]
Registry = Annotated[str, PlainValidator(names.registry), _text("registry.example.com")]
Listen = Annotated[Address, PlainValidator(names.listen_address), _text("127.0.0.1:8080")]
Ip = Annotated[str, PlainValidator(names.ip), _text("192.0.2.10")]
Pool = Annotated[str, PlainValidator(names.loopback_pool), _text(DEFAULT_POOL)]
PathText = Annotated[str, PlainValidator(_path), _text("./state")]
WorkingDir = Annotated[str, PlainValidator(_working_dir), _text("/app")]
UrlPath = Annotated[str, PlainValidator(_url_path), _text("/healthz")]
Argument = Annotated[str, PlainValidator(_argument), _text("--verbose")]
Variable = Annotated[str, PlainValidator(_variable), _text("GREETING")]
EnvValue = Annotated[
    str, PlainValidator(_env_value), WithJsonSchema({"type": ["string", "integer"]})
]
Workers = Annotated[
    int,
    PlainValidator(_workers),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}]}
    ),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535, examples=[8080])]
Count = Annotated[int, Field(strict=True, ge=1, le=1000, examples=[2])]
Weight = Annotated[
    int,
    PlainValidator(_weight),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 99, "examples": [10]}),
]
Flag = Annotated[bool, Field(strict=True)]
Cpu = Annotated[float, Field(strict=True, gt=0, le=1024, allow_inf_nan=False, examples=[0.5])]

_ENDPOINT = _defaults(EndpointSettings)
_CONTAINER = _defaults(ContainerTemplate)
_PROBE = _defaults(Probe)


class Shape(BaseModel):
    """A mapping: unknown keys are refused, the text under a key is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class HttpShape(Shape):
    """An HTTP request that passes on any 2xx answer; redirects are not followed."""

    port: Port | None = None
    """The port to ask; by default the container's only one."""
    path: UrlPath = "/"
    """The path to ask for."""


class TcpShape(Shape):
    """A connection that passes when it opens."""

    port: Port | None = None
    """The port to connect to; by default the container's only one."""


class ProbeShape(Shape):
    """An active health check: exactly one of `http` and `tcp`."""

    http: HttpShape | None = None
    """Ask for a path; any 2xx answer passes."""
    tcp: TcpShape | None = None
    """Open a connection."""
    every: PositiveDuration = _PROBE["every_s"]
    """How often to look."""
    timeout: PositiveDuration = _PROBE["timeout_s"]
    """How long an answer may take."""
    rise: Count = _PROBE["rise"]
    """How many passes in a row make a group ready."""
    fall: Count = _PROBE["fall"]
    """How many failures in a row make it unready."""


class ResourcesShape(Shape):
    """Limits of a container. What the runtime can't enforce, `status` says."""

    cpu: Cpu | None = None
    """CPUs, such as 0.5."""
    memory: Size | None = None
    """Memory, such as 256MiB."""


class ContainerShape(Shape):
    """One container of a group."""

    name: Name
    """Its name inside the group."""
    image: Image
    """The image and the tag to follow, as docker reads it."""
    command: list[Argument] = []
    """What to run instead of the image's own command, one item per argument."""
    env: dict[Variable, EnvValue] = {}
    """Environment variables, beside HOST and PORT, which every container gets."""
    ports: list[Port] = []
    """The ports it listens on, on the group's own address."""
    working_dir: WorkingDir = _CONTAINER["working_dir"]
    """Where to run it, inside the image; by default where the image says."""
    resources: ResourcesShape = ResourcesShape()
    """CPU and memory limits."""
    stop_grace: Duration = _CONTAINER["stop_grace_s"]
    """How long it may take to end after SIGTERM before it is killed."""
    readiness: ProbeShape | None = None
    """When it is ready for traffic; without it, as soon as it runs."""


class GroupShape(Shape):
    """What every group of an endpoint is made of."""

    replicas: Count = _ENDPOINT["replicas"]
    """How many groups of a revision run."""
    rootfs: Literal["host"] = "host"
    """`host`: plain processes of this machine, in the unpacked tree of their image."""
    containers: Annotated[
        list[ContainerShape],
        Field(examples=[[{"name": "web", "image": "shop/web:stable", "ports": [8080]}]]),
    ]
    """The containers; exactly one in this version."""


class UpdateShape(Shape):
    """How a new image is noticed."""

    policy: Literal["digest"] = "digest"
    """`digest`: whatever the tag points to now."""
    every: PositiveDuration = UpdatePolicy().every_s
    """How often to ask the registry, with some jitter."""


class StepShape(Shape):
    """One stage of a rollout."""

    weight: Weight
    """The candidate's share of the traffic, in per cent."""
    hold: Duration
    """How long it stays there."""


def _default_steps() -> list[StepShape]:
    steps: tuple[Step, ...] = _ENDPOINT["steps"]
    return [
        StepShape.model_validate({"weight": step.weight_pct, "hold": units.shown(step.hold_s)})
        for step in steps
    ]


class RolloutShape(Shape):
    """How an endpoint moves to a new revision."""

    strategy: Literal["canary"] = "canary"
    """`canary`: in steps of rising weight."""
    steps: Annotated[list[StepShape], AfterValidator(_rising), Field(min_length=1)] = Field(
        default_factory=_default_steps, examples=[[{"weight": 10, "hold": "30s"}]]
    )
    """The stages, with rising weights below 100, which comes by itself; by default 5, 25, 50."""
    min_ready: Duration = _ENDPOINT["min_ready_s"]
    """How long a new group must stay ready before it counts."""
    deadline: PositiveDuration = _ENDPOINT["deadline_s"]
    """How long a rollout may go without progress before it is aborted."""
    watch: Duration = _ENDPOINT["watch_s"]
    """How long a promoted revision is watched and goes back by itself if it fails."""
    keep_previous: Duration = _ENDPOINT["keep_previous_s"]
    """How long the revision before is kept warm, for an instant undo."""


class DrainShape(Shape):
    """How long the last clients of a withdrawn group may take."""

    http: Duration = _ENDPOINT["drain_http_s"]
    """For requests, and for clients that connect to the group directly."""
    websocket: Duration = _ENDPOINT["drain_websocket_s"]
    """For WebSockets and other tunnels."""


class EndpointShape(Shape):
    """A public name and its traffic policy."""

    hosts: Annotated[list[DnsName], Field(min_length=1, examples=[["shop.apps.test"]])]
    """The DNS names and HTTP hosts that it answers to."""
    ttl: Ttl = _ENDPOINT["ttl_s"]
    """The TTL of its DNS answers, in whole seconds; 0s lets nobody cache them."""
    ttl_grace: Duration = _ENDPOINT["ttl_grace_s"]
    """How much longer than the TTL a withdrawn address is still served."""
    publish: Literal["proxy", "groups"] = "proxy"
    """What DNS answers: the proxy's address, or the groups' own."""
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


class ListenShape(Shape):
    """The addresses of the data plane."""

    dns: list[Listen] = []
    """Where DNS is answered, over UDP and TCP."""
    http: list[Listen] = []
    """Where HTTP is proxied."""


class FileShape(Shape):
    """A configuration of trafficmgr."""

    state_dir: PathText = "./state"
    """Where the journal, tables, images and logs are kept."""
    listen: ListenShape = ListenShape()
    """The addresses of the data plane."""
    advertise: list[Ip] = []
    """What DNS answers for `publish: proxy`; by default the HTTP listen addresses."""
    address_pool: Pool = DEFAULT_POOL
    """The loopback network that groups get their addresses from."""
    workers: Workers = Field(default_factory=lambda: _workers("auto"))
    """How many data-plane processes run; `auto` is one for each CPU that may be used."""
    runtime: Literal["embedded"] = "embedded"
    """What runs the groups: `embedded` needs no Docker and no root."""
    fence: PositiveDuration = _ENDPOINT["fence_s"]
    """How long a worker may take to acknowledge a table before it is restarted."""
    zones: list[ZoneShape] = []
    """The DNS zones that are answered."""
    registries: dict[Registry, RegistryShape] = {}
    """Registries that need credentials or plain http."""
    endpoints: dict[Name, EndpointShape] = Field(examples=[{"shop": {"hosts": ["shop.apps.test"]}}])
    """The endpoints, by name."""
