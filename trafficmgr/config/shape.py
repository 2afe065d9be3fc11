"""The shape of the YAML file: which keys there are, what they take, what they mean.

One class per mapping. The text under a key is its documentation, and the JSON Schema for editors
is made from this page, so a key is described here once. Defaults that the core decides by are
taken from the core. What concerns more than one mapping is in `checks`; what the values mean
inside is in `translate`. What a single value takes is in `scalars`.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from trafficmgr.config import units
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import (
    DEFAULT_POOL,
    Argument,
    Count,
    Cpu,
    DnsName,
    Duration,
    EnvValue,
    Flag,
    Image,
    Ip,
    Listen,
    Mailbox,
    Name,
    PathText,
    Pool,
    Port,
    PositiveDuration,
    Registry,
    Size,
    Ttl,
    UrlPath,
    Variable,
    Weight,
    Workers,
    WorkingDir,
    worker_count,
)
from trafficmgr.config.settings import UpdatePolicy
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import EndpointSettings, Step
from trafficmgr.core.template import ContainerTemplate, Probe


def _defaults(noun: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.default for field in msgspec.structs.fields(noun)}


def _rising(steps: "list[StepShape]") -> "list[StepShape]":
    """Return the steps if each gives the candidate more than the one before."""
    for index, (one, other) in enumerate(pairwise(steps), 1):
        if other.weight == 0:
            raise UnfitError(
                "is 0, which is a preview and comes before any weight",
                "only the first step can be a preview",
                at=(index, "weight"),
            )
        if other.weight <= one.weight:
            raise UnfitError(
                f"is not more than the {one.weight} of the step before",
                "weights rise from step to step",
                at=(index, "weight"),
            )
    return steps


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


def _check_end(hold_s: float | None, *, pause: bool) -> None:
    """Raise UnfitError unless something says how long it lasts."""
    if hold_s is None and not pause:
        raise UnfitError(
            'has no "hold"', "add hold: 10s, or pause: true to wait for `trafficmgr promote`"
        )


class StepShape(Shape):
    """One stage of a rollout. It ends by its hold, or, with `pause`, by `trafficmgr promote`."""

    weight: Weight
    """The candidate's share of the traffic, in per cent; 0 is a preview, in the first step only."""
    hold: Duration | None = None
    """How long it stays there."""
    pause: Flag = False
    """Whether it waits for `trafficmgr promote`, however long; then the hold is not looked at."""
    deadline: PositiveDuration | None = None
    """How long this step may go without progress; by default the rollout's deadline."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        _check_end(self.hold, pause=self.pause)
        return self


class PreviewShape(Shape):
    """How long a new revision is looked at before everybody gets it."""

    hold: Duration | None = None
    """How long it is there for `preview.<host>` only."""
    pause: Flag = False
    """Whether it waits for `trafficmgr promote`, however long; then the hold is not looked at."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        _check_end(self.hold, pause=self.pause)
        return self


def _default_steps() -> list[StepShape]:
    steps: tuple[Step, ...] = _ENDPOINT["steps"]
    return [
        StepShape.model_validate({"weight": step.weight_pct, "hold": units.shown(step.hold_s)})
        for step in steps
    ]


class RolloutShape(Shape):
    """How an endpoint moves to a new revision."""

    strategy: Literal["canary", "blue-green"] = "canary"
    """`canary`: in steps of rising weight. `blue-green`: all at once, after a preview if any."""
    steps: Annotated[list[StepShape], AfterValidator(_rising), Field(min_length=1)] = Field(
        default_factory=_default_steps, examples=[[{"weight": 10, "hold": "30s"}]]
    )
    """The stages, with rising weights below 100, which comes by itself; by default 5, 25, 50."""
    preview: PreviewShape | None = None
    """With blue-green: how long the new revision is there for `preview.<host>` only."""
    candidate_replicas: Literal["full", "scaled"] = _ENDPOINT["candidate_replicas"].value
    """How many groups a new revision starts: all at once, or as many as its next weight needs."""
    on_newer: Literal["supersede", "queue", "ignore"] = _ENDPOINT["on_newer"].value
    """What a newer image does to the rollout under way."""
    min_ready: Duration = _ENDPOINT["min_ready_s"]
    """How long a new group must stay ready before it counts."""
    deadline: PositiveDuration = _ENDPOINT["deadline_s"]
    """How long a rollout may go without progress before it is aborted."""
    watch: Duration = _ENDPOINT["watch_s"]
    """How long a promoted revision is watched and goes back by itself if it fails."""
    keep_previous: Duration = _ENDPOINT["keep_previous_s"]
    """How long the revision before is kept warm, for an instant undo."""

    @model_validator(mode="after")
    def _is_of_one_strategy(self) -> Self:
        if self.strategy == "blue-green" and "steps" in self.model_fields_set:
            raise UnfitError(
                "has no place in blue-green, which moves all traffic at once",
                "remove it; preview: {hold: 30s} looks at the new revision before that",
                at=("steps",),
            )
        if self.strategy == "canary" and self.preview is not None:
            raise UnfitError(
                "belongs to blue-green",
                "write strategy: blue-green, or begin the steps with {weight: 0, hold: 30s}",
                at=("preview",),
            )
        return self


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
    workers: Workers = Field(default_factory=lambda: worker_count("auto"))
    """How many data-plane processes run; `auto` is one for each CPU that may be used."""
    runtime: Literal["embedded"] = "embedded"
    """What runs the groups: `embedded` needs no Docker and no root."""
    fence: PositiveDuration = _ENDPOINT["fence_s"]
    """How long a worker may take to acknowledge a table before it is restarted."""
    max_concurrent: Count = _defaults(Fleet)["max_concurrent"]
    """How many endpoints may have a rollout under way at once; the others wait their turn."""
    zones: list[ZoneShape] = []
    """The DNS zones that are answered."""
    registries: dict[Registry, RegistryShape] = {}
    """Registries that need credentials or plain http."""
    endpoints: dict[Name, EndpointShape] = Field(examples=[{"shop": {"hosts": ["shop.apps.test"]}}])
    """The endpoints, by name."""
