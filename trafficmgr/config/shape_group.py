"""The shape of `group`: containers, what they may use, what is looked at (see `shape`)."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trafficmgr.config.mapping import AlsoAlone, Shape, chosen, defaults, or_alone
from trafficmgr.config.scalars import (
    Argument,
    Count,
    Cpu,
    Duration,
    EnvValue,
    FileName,
    Flag,
    HostPath,
    Image,
    MountPath,
    Name,
    PathText,
    Port,
    PositiveDuration,
    SecretName,
    Size,
    UrlPath,
    User,
    Variable,
    WorkingDir,
)
from trafficmgr.core.model import EndpointSettings
from trafficmgr.core.template import ContainerTemplate, GroupTemplate, Mount, Probe

_CONTAINER = defaults(ContainerTemplate)
_GROUP = defaults(GroupTemplate)
_PROBE = defaults(Probe)

LIVENESS_EVERY_S = 10.0
"""Kubernetes' period. Liveness catches what hangs for good: looking more often finds it hardly
sooner, and each look costs a process when it is a command."""

# -- checks ---------------------------------------------------------------------------------------


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


class ExecShape(Shape):
    """A command that passes when it ends with exit code 0."""

    command: Annotated[list[Argument], Field(min_length=1, examples=[["./is-ready"]])]
    """What to run inside the container, one item per argument."""


class LivenessShape(Shape):
    """A health check that decides whether a group is replaced: one of `http`, `tcp`, `exec`."""

    http: HttpShape | None = None
    """Ask for a path; any 2xx answer passes."""
    tcp: TcpShape | None = None
    """Open a connection."""
    exec: Annotated[ExecShape | None, Field(examples=[{"command": ["./is-ready"]}])] = None
    """Run a command inside the container; exit code 0 passes."""
    initial_delay: Duration = _PROBE["initial_delay_s"]
    """How long after the start of a group to look for the first time."""
    every: PositiveDuration = LIVENESS_EVERY_S
    """How often to look."""
    timeout: PositiveDuration = _PROBE["timeout_s"]
    """How long an answer may take."""
    fall: Count = _PROBE["fall"]
    """How many failures in a row are too many."""


class ProbeShape(LivenessShape):
    """A health check that decides about traffic: exactly one of `http`, `tcp`, `exec`."""

    every: PositiveDuration = _PROBE["every_s"]
    """How often to look."""
    rise: Count = _PROBE["rise"]
    """How many passes in a row make a group ready."""
    fall: Count = _PROBE["fall"]
    """How many failures in a row make it unready."""


class PreStopShape(Shape):
    """What happens before SIGTERM: one of `exec` and `http`."""

    exec: Annotated[ExecShape | None, Field(examples=[{"command": ["./is-ready"]}])] = None
    """Run a command inside the container and wait for its end."""
    http: HttpShape | None = None
    """Ask for a path and wait for the answer."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "exec", "http", add="exec: {command: [./drain]}")
        return self


# -- values and volumes ---------------------------------------------------------------------------


class ValueFromShape(Shape):
    """Where a value is read from when a group starts: one of `secret`, `file`, `env`."""

    secret: SecretName | None = None
    """The name of a secret of the top level."""
    file: PathText | None = None
    """A file of trafficmgr's host; the line end at its end is left out."""
    env: Variable | None = None
    """A variable of trafficmgr's own environment."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "secret", "file", "env", add="secret: with the name of one")
        return self


class EnvShape(Shape):
    """The value of a variable: `value` (which may stand alone) or `value_from`."""

    value: EnvValue | None = None
    """The text itself."""
    value_from: ValueFromShape | None = None
    """Where it is read from when a group starts; it is shown nowhere."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "value", "value_from", add="value: with the text")
        return self


Env = Annotated[EnvShape, BeforeValidator(or_alone("value")), AlsoAlone(type=["string", "integer"])]


class EmptyDirShape(Shape):
    """A folder that begins empty and ends with the group."""

    size: Size | None = None
    """How much fits in; by default as much as the disk has."""


class VolumeShape(Shape):
    """A volume of the group: exactly one of `empty_dir`, `host_path`, `secret`."""

    name: Annotated[Name, Field(examples=["data"])]
    """Its name inside the group; only containers that mount it see it."""
    empty_dir: Annotated[EmptyDirShape | None, Field(examples=[{}])] = None
    """A folder that begins empty and ends with the group; {} has no limit."""
    host_path: HostPath | None = None
    """A folder or file of the host, which all groups share."""
    secret: (
        Annotated[dict[FileName, SecretName], Field(min_length=1, examples=[{"tls.key": "token"}])]
        | None
    ) = None
    """Files in memory, readable by their owner only: file name, and the name of a secret."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "empty_dir", "host_path", "secret", add="empty_dir: {}")
        return self


class MountShape(Shape):
    """Where a container sees a volume."""

    volume: Annotated[Name, Field(examples=["data"])]
    """The name of the volume."""
    path: MountPath
    """Where it is seen inside the container."""
    read_only: Flag = defaults(Mount)["is_read_only"]
    """Whether the container may only read it."""


# -- containers and groups ------------------------------------------------------------------------


class ResourcesShape(Shape):
    """Limits of a container or of a whole group. What the runtime can't enforce, `status` says."""

    cpu: Cpu | None = None
    """CPUs, such as 0.5."""
    memory: Size | None = None
    """Memory, such as 256MiB."""


class InitContainerShape(Shape):
    """A container that runs to its end before the others start."""

    name: Name
    """Its name inside the group."""
    image: Image
    """The image and the tag to follow, as docker reads it."""
    command: list[Argument] = []
    """What to run instead of the image's own command, one item per argument."""
    env: Annotated[dict[Variable, Env], Field(examples=[{"GREETING": "hello"}])] = {}
    """Environment variables, beside HOST, PORT and LOCALHOST, which every container gets."""
    working_dir: WorkingDir = _CONTAINER["working_dir"]
    """Where to run it, inside the image; by default where the image says."""
    user: User = _CONTAINER["user"]
    """Who it runs as: a name or number, or both as "1000:1000"; by default what the image says."""
    mounts: Annotated[
        list[MountShape], Field(examples=[[{"volume": "data", "path": "/data"}]])
    ] = []
    """The volumes that it sees."""
    resources: ResourcesShape = ResourcesShape()
    """CPU and memory limits."""
    stop_grace: Duration = _CONTAINER["stop_grace_s"]
    """How long it may take to end after SIGTERM before it is killed."""


class ContainerShape(InitContainerShape):
    """One container of a group."""

    ports: list[Port] = []
    """The ports it listens on, on the group's own address."""
    readiness: ProbeShape | None = None
    """When it is ready for traffic; without any in the group, when the port takes connections."""
    liveness: LivenessShape | None = None
    """Whether it hangs: then its group is lost and another takes its place; by default no look."""
    pre_stop: PreStopShape | None = None
    """What happens before SIGTERM."""


class GroupShape(Shape):
    """What every group of an endpoint is made of."""

    replicas: Count = defaults(EndpointSettings)["replicas"]
    """How many groups of a revision run."""
    restart: Literal["Always", "OnFailure", "Never"] = _GROUP["restart"].value
    """Whether the end of a container means that another group takes the place of this one."""
    resources: ResourcesShape = ResourcesShape()
    """CPU and memory limits of the whole group."""
    rootfs: Literal["host"] = _GROUP["rootfs"]
    """`host`: plain processes of this machine, in the unpacked tree of their image."""
    volumes: Annotated[
        list[VolumeShape], Field(examples=[[{"name": "data", "empty_dir": {}}]])
    ] = []
    """What containers of a group can share, or need to be given."""
    init_containers: Annotated[
        list[InitContainerShape], Field(examples=[[{"name": "fetch", "image": "shop/fetch"}]])
    ] = []
    """What runs before the containers, one after another, each to its end."""
    containers: Annotated[
        list[ContainerShape],
        Field(examples=[[{"name": "web", "image": "shop/web:stable", "ports": [8080]}]]),
    ]
    """The containers; they start together and share the group's address and localhost."""
