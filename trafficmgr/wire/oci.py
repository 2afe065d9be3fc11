"""What OCI images are called and made of: references, indexes, manifests, platforms.

Bytes in, checked values out. Nothing is believed that was not hashed: every decoder takes the
digest that the bytes must have. What does not fit raises `OciError`, whose text is a sentence.

Sources: OCI image-spec v1.1 (manifest.md, image-index.md, layer.md), the reference grammar of
distribution. Configs are in `oci_config`, what headers say (challenges, waits) in `oci_headers`.
"""

import hashlib
import re
from enum import StrEnum
from typing import TypeVar

import msgspec

from trafficmgr.core.noun import Noun

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = f"{OCI_INDEX}, {DOCKER_LIST}, {OCI_MANIFEST}, {DOCKER_MANIFEST}"
"""All four, always: with fewer a registry answers 404, or the digest of another document."""

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""distribution-spec: registries should take manifests of at least 4 MiB; few take more."""

MAX_LAYER_BYTES = 64 * 1024**3
"""A larger size in a manifest is a lie or a mistake."""

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"


class OciError(ValueError):
    """A name or a document is not what the specifications allow; the text says how."""


# -- names ----------------------------------------------------------------------------------------

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")
_PATH_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_REPOSITORY = 255


class Reference(Noun):
    """A parsed image reference. `tag` is empty when only a digest was written.

    A `digest` pins the image: the tag, if any, is for people and is not watched.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository with its registry, as `ContainerTemplate.image` holds it."""
        return f"{self.registry}/{self.repository}"


def parse_reference(text: str) -> Reference:
    """Read an image reference ("nginx", "host:5000/a/b:tag", "host/a@sha256:...").

    Raises:
        OciError: It is no reference; the text is a sentence that quotes it.
    """
    if "://" in text:
        raise OciError(f'image "{text}" starts with a scheme; write it without.')
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise OciError(f'image "{text}" has no valid digest; it must be sha256: and 64 hex digits.')
    head, colon, last = rest.rpartition(":")
    name, tag = (head, last) if colon and "/" not in last else (rest, "")
    if (colon and name == head) and not _TAG.fullmatch(tag):
        raise OciError(
            f'image "{text}" has no valid tag; it may have letters, digits, "_", "." and "-".'
        )
    registry, repository = split_repository(name, text)
    return Reference(
        registry=registry,
        repository=repository,
        tag=tag or ("" if digest else DEFAULT_TAG),
        digest=digest,
    )


def split_repository(name: str, text: str = "") -> tuple[str, str]:
    """Split "registry.example.com/shop/web" into its registry and its repository.

    Args:
        name: A reference without tag and digest.
        text: What errors quote; the name if empty.

    Raises:
        OciError: It is no name of a repository.
    """
    text = text or name
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first.lower() == "localhost")
    registry, repository = (first.lower(), rest) if is_host else (DEFAULT_REGISTRY, name)
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not _HOST.fullmatch(registry):
        raise OciError(f'image "{text}" names "{first}", which is no host of a registry.')
    _check_repository(repository, text)
    return registry, repository


def is_digest(text: str) -> bool:
    """Whether this is a sha256 digest in its one spelling."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(body: bytes) -> str:
    """Return the digest of a document."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _check_repository(repository: str, text: str) -> None:
    if not repository:
        raise OciError(f'image "{text}" has no name.')
    if repository != repository.lower():
        raise OciError(f'image "{text}" has upper case letters in its name; names are lower case.')
    if len(repository) > _MAX_REPOSITORY:
        raise OciError(f'image "{text}" has a name of more than {_MAX_REPOSITORY} characters.')
    for part in repository.split("/"):
        if not _PATH_PART.fullmatch(part):
            raise OciError(
                f'image "{text}" has "{part}" in its name; each part is made of letters and '
                f'digits, with single ".", "_" or "-" between them.'
            )


# -- documents ------------------------------------------------------------------------------------


class _Document(Noun, rename="camel"):
    """JSON of the image-spec, which writes names in camelCase."""


class Platform(_Document):
    """For which machines a manifest is meant."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        """Return it as people write it: linux/arm64/v8."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(_Document):
    """A pointer to content: its type, digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None


class Manifest(Noun):
    """An image for one platform. `digest` is of its own bytes."""

    digest: str
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(Noun):
    """One image for several platforms. `digest` is of its own bytes."""

    digest: str
    media_type: str
    manifests: tuple[Descriptor, ...]


class Compression(StrEnum):
    """How a layer's tar is packed."""

    none = "none"
    gzip = "gzip"


_COMPRESSIONS = {
    OCI_LAYER: Compression.none,
    DOCKER_LAYER: Compression.none,
    OCI_LAYER_GZIP: Compression.gzip,
    DOCKER_LAYER_GZIP: Compression.gzip,
}


class _ManifestJson(_Document):
    """A manifest or an index, before we know which. Unknown keys are allowed by the spec."""

    schema_version: int
    media_type: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None


_T = TypeVar("_T")


def decode_manifest(
    body: bytes, content_type: str = "", expected_digest: str | None = None
) -> Manifest | Index:
    """Read a manifest or an index.

    A document that could be read as both is refused (CVE-2021-41190), and so is one whose own
    media type contradicts the header that it came with.

    Args:
        body: The bytes as they came; they are what is hashed.
        content_type: The header; empty when the bytes come from our own store.
        expected_digest: What the bytes must hash to; None if only their tag is known.

    Raises:
        OciError: It is not that document, or none that we understand.
    """
    digest = checked_digest(body, expected_digest)
    parsed = decode_json(body, _ManifestJson, "manifest")
    media_type = _media_type(parsed, content_type)
    if media_type in INDEX_TYPES:
        manifests = parsed.manifests or ()
        _check_descriptors(manifests)
        return Index(digest=digest, media_type=media_type, manifests=manifests)
    if parsed.config is None or parsed.layers is None:
        raise OciError("The manifest lacks its config or its layers.")
    _check_descriptors((parsed.config, *parsed.layers))
    return Manifest(
        digest=digest, media_type=media_type, config=parsed.config, layers=parsed.layers
    )


def checked_digest(body: bytes, expected: str | None) -> str:
    """Return the digest of a document.

    Raises:
        OciError: It is too large, or has another digest than it must have.
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise OciError(f"The document has more than {MAX_DOCUMENT_BYTES} bytes.")
    digest = digest_of(body)
    if expected is not None and digest != expected:
        raise OciError(f"The document hashes to {digest}, but {expected} was asked for.")
    return digest


def decode_json(body: bytes, shape: type[_T], what: str) -> _T:
    """Return JSON in its shape; unknown keys are allowed by the specifications.

    Raises:
        OciError: It has another shape, or is no JSON.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OciError(f"The {what} is not the JSON it should be: {error}.") from error


def layer_compression(media_type: str) -> Compression:
    """Return how a layer of this type is packed.

    Raises:
        OciError: We can't unpack such a layer.
    """
    found = _COMPRESSIONS.get(media_type)
    if found is None:
        raise OciError(
            f'The image has a layer of type "{media_type}"; only plain and gzip tars can be '
            f"unpacked. Build it with gzip layers."
        )
    return found


def choose_platform(index: Index, *, os: str, architecture: str, variant: str = "") -> Descriptor:
    """Return the manifest for a machine: same variant first, then one that asks for none.

    Attestations (platform unknown/unknown, or so annotated) are no images and are passed over. An
    entry without a platform is taken when it is the only image there is.

    Raises:
        OciError: There is none; the text lists what there is.
    """
    wanted = Platform(os=os, architecture=architecture, variant=variant)
    images = [entry for entry in index.manifests if _is_image(entry)]
    fitting = [entry for entry in images if _fits(entry.platform, wanted)]
    for step in (_variant(wanted), ""):
        for entry in fitting:
            if entry.platform and _variant(entry.platform) == step:
                return entry
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    there = ", ".join(str(entry.platform or "one without platform") for entry in images)
    raise OciError(f"The image is not made for {wanted}; it has {there or 'no image at all'}.")


def _media_type(parsed: _ManifestJson, content_type: str) -> str:
    is_index = parsed.manifests is not None
    if is_index and (parsed.layers is not None or parsed.config is not None):
        raise OciError("The document claims to be a manifest and an index at once.")
    header = content_type.partition(";")[0].strip().lower()
    names = {parsed.media_type, header if header in INDEX_TYPES | MANIFEST_TYPES else ""} - {""}
    if not names:
        return OCI_INDEX if is_index else OCI_MANIFEST
    if len(names) > 1 or not names <= (INDEX_TYPES if is_index else MANIFEST_TYPES):
        said = " and ".join(f'"{name}"' for name in sorted(names))
        raise OciError(f"The document is called {said}, which it is not.")
    return names.pop()


def _check_descriptors(descriptors: tuple[Descriptor, ...]) -> None:
    for entry in descriptors:
        if not is_digest(entry.digest):
            raise OciError(f'The document points to "{entry.digest[:80]}", no sha256 digest.')
        if not 0 <= entry.size <= MAX_LAYER_BYTES:
            raise OciError(f"The document points to content of {entry.size} bytes.")


def _is_image(entry: Descriptor) -> bool:
    platform = entry.platform
    is_unknown = platform is not None and "unknown" in (platform.os, platform.architecture)
    is_attestation = "vnd.docker.reference.type" in (entry.annotations or {})
    return entry.media_type in MANIFEST_TYPES and not is_unknown and not is_attestation


def _fits(platform: Platform | None, wanted: Platform) -> bool:
    if platform is None:
        return False
    return (platform.os, platform.architecture) == (wanted.os, wanted.architecture)


def _variant(platform: Platform) -> str:
    """Arm64 has one variant, v8, which most people don't write."""
    is_plain = platform.architecture == "arm64" and platform.variant == "v8"
    return "" if is_plain else platform.variant
