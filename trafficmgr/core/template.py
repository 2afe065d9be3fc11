"""What runs: the template that the user wrote, and the revision that it makes with its images.

A revision's identity is what the user wrote under `group` and the exact images, and nothing else
(DESIGN 2).
"""

import hashlib
import json
from enum import StrEnum

import msgspec
from msgspec.structs import FieldInfo
from msgspec.structs import fields as fields_of

from trafficmgr.core.noun import Noun

# -- checks ---------------------------------------------------------------------------------------


class HttpCheck(Noun, tag="http"):
    """A probe that passes on any 2xx answer within the timeout; redirects are not followed."""

    port: int
    path: str = "/"


class TcpCheck(Noun, tag="tcp"):
    """A probe that passes when the connection opens."""

    port: int


class ExecCheck(Noun, tag="exec"):
    """A probe that passes when a command, run inside the container, ends with exit code 0."""

    command: tuple[str, ...]


class Probe(Noun):
    """An active health check and its thresholds (DESIGN 10: every 1 s, 5 s, rise 2, fall 3).

    `initial_delay_s` is how long after the start of a group the first one waits.
    """

    check: HttpCheck | TcpCheck | ExecCheck
    every_s: float = 1.0
    timeout_s: float = 5.0
    rise: int = 2
    fall: int = 3
    initial_delay_s: float = 0.0


# -- values that are not in the template ----------------------------------------------------------


class FromSecret(Noun, tag="secret"):
    """A value of the config's `secrets`, by its name."""

    name: str


class FromFile(Noun, tag="file"):
    """What a file of the controller's host holds, without a final line end."""

    path: str


class FromEnv(Noun, tag="env"):
    """A variable of the controller's own environment."""

    variable: str


ValueFrom = FromSecret | FromFile | FromEnv
"""Where a value is taken from when a group starts. The template never holds the value itself."""


# -- volumes --------------------------------------------------------------------------------------


class EmptyDir(Noun, tag="empty_dir"):
    """A folder that begins empty and ends with the group."""

    size_bytes: int | None = None


class HostPath(Noun, tag="host_path"):
    """A folder or file of the host."""

    path: str


class SecretFiles(Noun, tag="secret"):
    """Files in memory, mode 0400: file name -> name of a secret."""

    files: dict[str, str]


class Volume(Noun):
    """A volume of the group; only containers that mount it see it."""

    name: str
    source: EmptyDir | HostPath | SecretFiles


class Mount(Noun):
    """Where a container sees a volume."""

    volume: str
    path: str
    is_read_only: bool = False


# -- containers and groups ------------------------------------------------------------------------


class RestartPolicy(StrEnum):
    """What the end of a container means for its group (docs/decisions/0010).

    `Always`: the group has ended and another takes its place. `OnFailure`: so it is unless the exit
    code is 0. `Never`: the others run on. A group of which all containers ended, and none of them
    so that the policy wants another, is completed.
    """

    always = "Always"
    on_failure = "OnFailure"
    never = "Never"


class Resources(Noun):
    """Limits of one container or of a whole group; None is unlimited."""

    cpu: float | None = None
    memory_bytes: int | None = None


class ContainerTemplate(Noun):
    """One container of a group, as the user wrote it.

    `image` is the repository with its registry ("registry.example.com/shop/web"); `tag` says what
    to watch and is no part of a revision's identity, nor are the probes. `user` is a name or
    number, or two with a colon between ("" is the image's). `pre_stop` happens before SIGTERM.
    """

    name: str
    image: str
    tag: str = "latest"
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    env_from: dict[str, ValueFrom] = {}
    ports: tuple[int, ...] = ()
    working_dir: str = ""
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    resources: Resources = Resources()
    pre_stop: HttpCheck | ExecCheck | None = None
    stop_grace_s: float = 10.0
    readiness: Probe | None = None
    liveness: Probe | None = None


class GroupTemplate(Noun):
    """What every group of an endpoint is made of.

    `init_containers` run one after another, each to its end, before `containers` start together.
    Names are unique among both. `rootfs` is "host" for process mode: plain processes in the
    unpacked tree of their image; a container engine does not look at it.
    """

    containers: tuple[ContainerTemplate, ...]
    init_containers: tuple[ContainerTemplate, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart: RestartPolicy = RestartPolicy.always
    resources: Resources = Resources()
    rootfs: str = "host"

    def every_container(self) -> tuple[ContainerTemplate, ...]:
        """Return init containers and containers: all that need an image."""
        return self.init_containers + self.containers


class ImageDigest(Noun):
    """The exact image that a container runs.

    `digest` is what the registry answers for the tag (an index or a manifest), `platform_digest`
    the manifest for this machine's platform; equal when there is no index.
    """

    container: str
    repository: str
    digest: str
    platform_digest: str


class Revision(Noun):
    """What runs: a template and the digests it was resolved to."""

    id: str
    template: GroupTemplate
    images: tuple[ImageDigest, ...]


NOT_IDENTITY = ("tag", "readiness", "liveness")
"""Keys of a container that say how we watch it, not what it is."""


def revision_id(template: GroupTemplate, images: tuple[ImageDigest, ...]) -> str:
    """Return the identity of a revision: sha256 over canonical JSON, in hex.

    Defaults are omitted, so that writing one out changes nothing and a key added to the language
    later changes no id. tests/core/test_model.py pins known ids for ever.
    """
    platform = {image.container: image.platform_digest for image in images}
    identity = {"group": _written(template), "images": platform}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _written(value: object) -> object:
    """Return a noun as plain data, without what is a default and what is no identity."""
    match value:
        case msgspec.Struct():
            written = {
                field.name: _written(given)
                for field in fields_of(type(value))
                if field.name not in NOT_IDENTITY
                and (given := getattr(value, field.name)) not in _defaults(field)
            }
            tag = value.__struct_config__.tag
            return written if tag is None else {"type": tag, **written}
        case tuple():
            return [_written(item) for item in value]
        case dict():
            return {key: _written(item) for key, item in value.items()}
        case _:
            return value


def _defaults(field: FieldInfo) -> tuple[object, ...]:
    """Return the values that mean the same as not having written the field."""
    made = () if field.default_factory is msgspec.NODEFAULT else (field.default_factory(),)
    return (field.default, *made)


def short(revision: str) -> str:
    """Return the first characters of a revision id, as people see it."""
    return revision[:8]
