"""What runs: the template that the user wrote, and the revision that it makes with its images.

A revision's identity is what the user wrote under `group` and the exact images, and nothing else
(DESIGN 2).
"""

import hashlib
import json

import msgspec
from msgspec.structs import FieldInfo
from msgspec.structs import fields as fields_of

from trafficmgr.core.noun import Noun


class HttpCheck(Noun, tag="http"):
    """A probe that passes on any 2xx answer within the timeout; redirects are not followed."""

    port: int
    path: str = "/"


class TcpCheck(Noun, tag="tcp"):
    """A probe that passes when the connection opens."""

    port: int


class Probe(Noun):
    """An active health check and its thresholds (DESIGN 10: every 1 s, 5 s, rise 2, fall 3)."""

    check: HttpCheck | TcpCheck
    every_s: float = 1.0
    timeout_s: float = 5.0
    rise: int = 2
    fall: int = 3


class Resources(Noun):
    """Limits of one container; None is unlimited."""

    cpu: float | None = None
    memory_bytes: int | None = None


class ContainerTemplate(Noun):
    """One container of a group, as the user wrote it.

    `image` is the repository with its registry ("registry.example.com/shop/web"); `tag` says what
    to watch and is no part of a revision's identity, nor is `readiness`.
    """

    name: str
    image: str
    tag: str = "latest"
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    ports: tuple[int, ...] = ()
    working_dir: str = ""
    resources: Resources = Resources()
    stop_grace_s: float = 10.0
    readiness: Probe | None = None


class GroupTemplate(Noun):
    """What every group of an endpoint is made of.

    `rootfs` is "host" for process mode: plain processes in the unpacked tree of their image.
    """

    containers: tuple[ContainerTemplate, ...]
    rootfs: str = "host"


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


NOT_IDENTITY = ("tag", "readiness")
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
            return {
                field.name: _written(given)
                for field in fields_of(type(value))
                if field.name not in NOT_IDENTITY
                and (given := getattr(value, field.name)) not in _defaults(field)
            }
        case tuple():
            return [_written(item) for item in value]
        case _:
            return value


def _defaults(field: FieldInfo) -> tuple[object, ...]:
    """Return the values that mean the same as not having written the field."""
    made = () if field.default_factory is msgspec.NODEFAULT else (field.default_factory(),)
    return (field.default, *made)


def short(revision: str) -> str:
    """Return the first characters of a revision id, as people see it."""
    return revision[:8]
