"""Builds real OCI images without Docker, and pushes them over the distribution API.

    web = Image(files={"app.py": b"...", "bin/sh": File(link="busybox")}, config={"Cmd": [...]})
    digest = await push("http://127.0.0.1:5000", "shop/web", "stable", web)

The same input gives the same digests. It shares no code with trafficmgr, so that a mistake on one
side is not repeated on the other. Sources: OCI image-spec v1.1, distribution-spec v1.1.
"""

import base64
import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def this_architecture() -> str:
    """Return the architecture of this machine, as OCI calls it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def sha256(body: bytes) -> str:
    """Return the digest of some bytes."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


@dataclass(frozen=True)
class File:
    """One entry of a layer: a file, a symbolic link (`link`) or a folder (`is_folder`)."""

    content: bytes = b""
    mode: int = 0o644
    link: str = ""
    is_folder: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer as it is stored: `blob` is the tar, packed or not; `diff_id` is of the plain tar."""

    blob: bytes
    media_type: str
    diff_id: str

    @classmethod
    def of_tar(cls, tar: bytes, *, packed: bool = True) -> "Layer":
        """Make a layer of a tar, as gzip or plain."""
        blob = gzip.compress(tar, mtime=0) if packed else tar
        return cls(blob, TAR + ("+gzip" if packed else ""), sha256(tar))

    @classmethod
    def of_files(cls, files: Mapping[str, bytes | File], *, packed: bool = True) -> "Layer":
        """Make a layer of files, with the folders that they need."""
        return cls.of_entries(_entries(files), packed=packed)

    @classmethod
    def of_entries(
        cls, entries: Iterable[tuple[tarfile.TarInfo, bytes]], *, packed: bool = True
    ) -> "Layer":
        """Make a layer of raw tar entries, hostile ones included; nothing is corrected."""
        return cls.of_tar(_tar(entries), packed=packed)


@dataclass(frozen=True)
class Image:
    """An image for one platform: `layers` from the bottom up, then one of `files` if there are any.

    `config` has the keys of an image's config: Entrypoint, Cmd, Env, WorkingDir, User, StopSignal.
    """

    files: Mapping[str, bytes | File] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    os: str = "linux"
    architecture: str = field(default_factory=this_architecture)
    variant: str = ""
    packed: bool = True

    @cached_property
    def all_layers(self) -> tuple[Layer, ...]:
        """Every layer, from the bottom up."""
        own = (Layer.of_files(self.files, packed=self.packed),) if self.files else ()
        return (*self.layers, *own)

    @cached_property
    def config_json(self) -> bytes:
        """The config blob."""
        return _json(
            {
                **self.platform,
                "config": dict(self.config),
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [layer.diff_id for layer in self.all_layers],
                },
            }
        )

    @cached_property
    def manifest(self) -> bytes:
        """The manifest's bytes."""
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(CONFIG, self.config_json),
                "layers": [_descriptor(layer.media_type, layer.blob) for layer in self.all_layers],
            }
        )

    @property
    def media_type(self) -> str:
        """The type of `manifest`."""
        return MANIFEST

    @property
    def digest(self) -> str:
        """The digest of `manifest`."""
        return sha256(self.manifest)

    @property
    def platform(self) -> dict[str, str]:
        """The platform as configs and indexes write it."""
        written = {"os": self.os, "architecture": self.architecture, "variant": self.variant}
        return {key: value for key, value in written.items() if value}

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """Config and layers."""
        return (self.config_json, *(layer.blob for layer in self.all_layers))

    @property
    def children(self) -> tuple["Image", ...]:
        """The images that must be pushed before it: none."""
        return ()


@dataclass(frozen=True)
class Index:
    """One image for several platforms. `extra` entries are added as they are."""

    images: tuple[Image, ...]
    extra: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def manifest(self) -> bytes:
        """The index's bytes."""
        entries = [
            {**_descriptor(MANIFEST, image.manifest), "platform": image.platform}
            for image in self.images
        ]
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [*entries, *(dict(entry) for entry in self.extra)],
            }
        )

    @property
    def media_type(self) -> str:
        """The type of `manifest`."""
        return INDEX

    @property
    def digest(self) -> str:
        """The digest of `manifest`."""
        return sha256(self.manifest)

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """An index has none of its own."""
        return ()

    @property
    def children(self) -> tuple[Image, ...]:
        """The images that must be pushed before it."""
        return self.images


def tar_of(files: Mapping[str, bytes | File]) -> bytes:
    """Return the plain tar of some files, with the folders that they need."""
    return _tar(_entries(files))


async def push(
    base_url: str,
    repository: str,
    tag: str,
    image: Image | Index,
    *,
    auth: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Push an image and return the digest that the tag names now.

    Args:
        base_url: "http://127.0.0.1:5000".
        repository: "shop/web".
        tag: "stable".
        image: What to push; blobs that are there already are not sent again.
        auth: User and password, if the registry wants them.
        headers: Sent with every request; a bearer token goes here.

    Raises:
        aiohttp.ClientResponseError: The registry refused something.
    """
    sent = dict(headers or {})
    if auth:
        sent["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    async with aiohttp.ClientSession(headers=sent, raise_for_status=True) as session:
        root = f"{base_url}/v2/{repository}"
        for child in image.children:
            await _push_one(session, root, child.digest, child)
        await _push_one(session, root, tag, image)
    return image.digest


def write_layout(folder: Path, tag: str, image: Image) -> None:
    """Write an image as an OCI layout, which skopeo and others can read."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for body in (*image.blobs, image.manifest):
        (blobs / sha256(body).removeprefix("sha256:")).write_bytes(body)
    entry = {
        **_descriptor(MANIFEST, image.manifest),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


async def _push_one(
    session: aiohttp.ClientSession, root: str, reference: str, image: Image | Index
) -> None:
    for blob in image.blobs:
        await _push_blob(session, root, blob)
    answer = await session.put(
        f"{root}/manifests/{reference}",
        data=image.manifest,
        headers={"Content-Type": image.media_type},
    )
    answer.release()


async def _push_blob(session: aiohttp.ClientSession, root: str, blob: bytes) -> None:
    digest = sha256(blob)
    async with session.head(f"{root}/blobs/{digest}", raise_for_status=False) as known:
        if known.status == 200:
            return
    async with session.post(f"{root}/blobs/uploads/") as started:
        upload = started.url.join(URL(started.headers["Location"]))
    async with session.put(
        upload.extend_query(digest=digest),
        data=io.BytesIO(blob),
        headers={"Content-Type": "application/octet-stream"},
    ):
        pass


def _tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _entries(files: Mapping[str, bytes | File]) -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    seen: set[str] = set()
    for name, value in sorted(files.items()):
        for parent in reversed(Path(name).parents[:-1]):
            if str(parent) not in seen and str(parent) not in files:
                seen.add(str(parent))
                yield _entry(str(parent), File(mode=0o755, is_folder=True))
        yield _entry(name, value if isinstance(value, File) else File(value))


def _entry(name: str, file: File) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = file.mode
    if file.link:
        info.type, info.linkname = tarfile.SYMTYPE, file.link
    elif file.is_folder:
        info.type = tarfile.DIRTYPE
    else:
        info.size = len(file.content)
    return info, file.content


def _descriptor(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(body), "size": len(body)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
