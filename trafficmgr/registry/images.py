"""From "registry.example.com/shop/web", tag "stable", to an image that lies on this machine.

`resolve` answers which image a tag names now, for this machine's platform; `pull` brings one here
by its digest. The tag is never looked at again in between, so that what was seen is what runs.

Whatever is in the store is not asked for again: a group can be started while the registry is down.

`keep` removes what nobody needs any more. It spares what a pull has found or brought that is under
way, or that began after the `keep` before: whoever pulled it may still be reading its layers.
"""

import asyncio
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.client import RegistryClient
from trafficmgr.registry.credentials import Credentials, RegistryAccess, find_credentials
from trafficmgr.registry.errors import (
    NotFoundError,
    RegistryError,
    StoreError,
    UntrustworthyAnswerError,
    UnusableImageError,
)
from trafficmgr.registry.store import BlobStore
from trafficmgr.registry.transport import ANSWER_TIMEOUT_S
from trafficmgr.wire.images import Layer, LocalImage
from trafficmgr.wire.oci import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Index,
    Manifest,
    OciError,
    Platform,
    choose_platform,
    decode_manifest,
    layer_compression,
    split_repository,
)
from trafficmgr.wire.oci_config import Config, decode_config

PARALLEL_DOWNLOADS = 3
"""Docker and containerd pull three layers at a time; more only take turns on the same line."""

_HERE = "of this machine"
"""Whose fault it is, in an error's text, when no registry was asked."""

_MACHINES = {
    "x86_64": Platform(os="linux", architecture="amd64"),
    "aarch64": Platform(os="linux", architecture="arm64"),
    "armv7l": Platform(os="linux", architecture="arm", variant="v7"),
}


class Resolved(Noun):
    """What a tag names: `digest` of the index or manifest, `platform_digest` of our manifest."""

    digest: str
    platform_digest: str


class BlobsRemoved(Noun):
    """What `keep` has removed."""

    blobs: int = 0
    size_bytes: int = 0


def this_platform() -> Platform:
    """Return the platform of this machine, as OCI calls it."""
    machine = platform.machine()
    return _MACHINES.get(machine, Platform(os="linux", architecture=machine))


class Images:
    """All registries and one store. Every method raises RegistryError.

    Args:
        store: Where images are kept; it stays the caller's to close.
        registries: How to reach a registry, by its host; others are reached without credentials
            of ours.
        timeout_s: How long a registry may take for a small answer.
        machine: The platform to pull for.
    """

    def __init__(
        self,
        store: BlobStore,
        registries: Mapping[str, RegistryAccess],
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        machine: Platform | None = None,
    ) -> None:
        self._store = store
        self._access = dict(registries)
        self._timeout_s = timeout_s
        self._machine = machine or this_platform()
        self._clients: dict[str, RegistryClient] = {}
        self._replaced: list[RegistryClient] = []
        self._locks: dict[str, asyncio.Lock] = {}
        self._downloads = asyncio.Semaphore(PARALLEL_DOWNLOADS)
        self._held: Counter[str] = Counter()
        self._fresh: set[str] = set()

    async def close(self) -> None:
        """Close every connection."""
        for client in (*self._clients.values(), *self._replaced):
            await client.close()
        self._clients.clear()
        self._replaced.clear()

    def reach(self, registries: Mapping[str, RegistryAccess]) -> frozenset[str]:
        """Reach registries like this from now on; return those for which that is something new.

        What is under way ends as it began: a replaced client is kept until `close`.
        """
        hosts = registries.keys() | self._access.keys()
        changed = frozenset(h for h in hosts if registries.get(h) != self._access.get(h))
        self._replaced += [self._clients.pop(h) for h in changed if h in self._clients]
        self._access = dict(registries)
        return changed

    async def digest(self, repository: str, tag: str) -> str:
        """Return the digest that a tag names now: one HEAD.

        Raises:
            RegistryError: It can't be known now.
        """
        client, name = self._client(repository)
        return await client.digest(name, tag)

    async def credentials(self, repository: str) -> Credentials | None:
        """Return who to log in as for a repository; None is nobody.

        Raises:
            AccessDeniedError: There are credentials, but they can't be read.
        """
        registry, path = split_repository(repository)
        return await find_credentials(registry, path, self._access.get(registry, RegistryAccess()))

    async def resolve(self, repository: str, tag: str) -> Resolved:
        """Return what a tag names now, for this machine.

        Raises:
            RegistryError: It can't be known now, or there is nothing for this machine.
        """
        return await self.resolve_digest(repository, await self.digest(repository, tag))

    async def resolve_digest(self, repository: str, digest: str) -> Resolved:
        """Return what a digest stands for on this machine.

        Raises:
            RegistryError: It can't be known now, or there is nothing for this machine.
        """
        found = await self._manifest(repository, digest)
        if isinstance(found, Manifest):
            return Resolved(digest=digest, platform_digest=digest)
        return Resolved(digest=digest, platform_digest=self._choose(repository, found).digest)

    async def pull(self, image: ImageDigest) -> LocalImage:
        """Bring an image here, whole, and return it; nothing is asked for that is here already.

        Raises:
            RegistryError: It can't be had, can't be kept, or is not for this machine.
        """
        manifest = await self._manifest(image.repository, image.platform_digest)
        if isinstance(manifest, Index):
            what = f"{image.repository}@{image.platform_digest} is an index inside an index"
            raise UnusableImageError(self._registry(image.repository), what)
        with self._holding(_blobs_of(manifest)):
            config = await self._config(image.repository, manifest)
            self._check_layers(image.repository, manifest, config)
            await self._fetch_all(image.repository, manifest.layers)
        return LocalImage(
            platform_digest=manifest.digest,
            config=config.image,
            layers=tuple(
                Layer(
                    path=str(self._store.path(layer.digest)),
                    media_type=layer.media_type,
                    digest=layer.digest,
                    diff_id=diff_id,
                )
                for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
            ),
        )

    async def keep(self, digests: frozenset[str]) -> BlobsRemoved:
        """Remove all that these manifests and indexes do not need.

        A pull that runs meanwhile keeps what it has, and downloads what it finds gone.

        Raises:
            StoreError: What one of them needs can't be read, or the disk would not do it.
        """
        wanted, self._fresh = frozenset(self._fresh), set()
        try:
            for digest in digests:
                wanted |= await self._needs(digest)
            removed = BlobsRemoved()
            for digest in sorted(await self._store.digests() - wanted):
                size_bytes = await self._remove(digest)
                if size_bytes is not None:
                    removed = BlobsRemoved(
                        blobs=removed.blobs + 1, size_bytes=removed.size_bytes + size_bytes
                    )
        except OSError as error:
            what = f"what nobody needs can't be removed from {self._store.root}: {error}"
            raise StoreError(_HERE, what) from error
        return removed

    async def _needs(self, digest: str) -> frozenset[str]:
        """Return the blobs of a manifest or an index, itself among them."""
        body = await self._store.read(digest)
        if body is None:  # it was never pulled, or is pulled just now, which `_holding` sees to
            return frozenset({digest})
        found = self._decoded(_HERE, digest, body)
        return _blobs_of(found) if isinstance(found, Manifest) else frozenset({digest})

    async def _remove(self, digest: str) -> int | None:
        """Remove a blob, unless somebody wants it by now (None)."""
        async with self._alone(digest):
            if self._held[digest] or digest in self._fresh:
                return None
            return await self._store.remove(digest)

    @contextmanager
    def _holding(self, blobs: frozenset[str]) -> Iterator[None]:
        self._held.update(blobs)
        try:
            yield
        finally:
            self._held -= Counter(blobs)
            self._fresh |= blobs

    async def _manifest(self, repository: str, digest: str) -> Manifest | Index:
        """Return a manifest or an index from the store, else from the registry."""
        async with self._alone(digest):
            self._fresh.add(digest)
            body = await self._read(repository, digest)
            if body is not None:
                return self._decoded(repository, digest, body)
            client, name = self._client(repository)
            body, manifest = await client.manifest(name, digest)
            try:
                await self._store.put(body)
            except OSError as error:
                raise self._cannot_keep(repository, digest, error) from error
            return manifest

    async def _config(self, repository: str, manifest: Manifest) -> Config:
        registry = self._registry(repository)
        if manifest.config.size > MAX_DOCUMENT_BYTES:
            what = f"the config of {repository} has {manifest.config.size} bytes"
            raise UntrustworthyAnswerError(registry, what)
        await self._fetch(repository, manifest.config)
        body = await self._read(repository, manifest.config.digest)
        if body is None:
            what = f"{manifest.config.digest} has vanished from {self._store.root}"
            raise StoreError(registry, what)
        try:
            return decode_config(body, manifest.config.digest)
        except OciError as error:
            what = f"{repository}@{manifest.digest} can't be used: {error}"
            raise UntrustworthyAnswerError(registry, what) from error

    def _check_layers(self, repository: str, manifest: Manifest, config: Config) -> None:
        """Refuse what we could not unpack before it is downloaded."""
        what = f"{repository}@{manifest.digest}"
        if len(config.diff_ids) != len(manifest.layers):
            said = f"{what} has {len(manifest.layers)} layers and {len(config.diff_ids)} diff_ids"
            raise UntrustworthyAnswerError(self._registry(repository), said)
        try:
            for layer in manifest.layers:
                layer_compression(layer.media_type)
        except OciError as error:
            said = f"{what} can't be used: {error}"
            raise UnusableImageError(self._registry(repository), said) from error

    async def _fetch_all(self, repository: str, blobs: tuple[Descriptor, ...]) -> None:
        """Download what is missing. The first failure ends the others, and is the one raised."""
        try:
            async with asyncio.TaskGroup() as group:
                for blob in {blob.digest: blob for blob in blobs}.values():
                    group.create_task(self._fetch(repository, blob))
        except BaseExceptionGroup as failures:
            errors, rest = failures.split(RegistryError)
            if rest is not None or errors is None:
                raise
            raise _first(errors) from None

    async def _fetch(self, repository: str, blob: Descriptor) -> None:
        async with self._alone(blob.digest):
            if self._store.has(blob.digest):
                return
            async with self._downloads:
                client, name = self._client(repository)
                await client.download(name, blob, self._store)

    async def _read(self, repository: str, digest: str) -> bytes | None:
        try:
            return await self._store.read(digest)
        except OSError as error:
            raise self._cannot_keep(repository, digest, error) from error

    def _decoded(self, repository: str, digest: str, body: bytes) -> Manifest | Index:
        try:
            return decode_manifest(body, "", digest)
        except OciError as error:
            what = f"{repository}@{digest} in {self._store.root} can't be used: {error}"
            raise StoreError(self._registry(repository), what) from error

    def _choose(self, repository: str, index: Index) -> Descriptor:
        wanted = self._machine
        try:
            return choose_platform(
                index, os=wanted.os, architecture=wanted.architecture, variant=wanted.variant
            )
        except OciError as error:
            what = f"{repository}@{index.digest} can't be used: {error}"
            raise UnusableImageError(self._registry(repository), what) from error

    def _cannot_keep(self, repository: str, digest: str, error: OSError) -> StoreError:
        what = f"{digest} can't be kept in {self._store.root} ({error.strerror or error})"
        return StoreError(self._registry(repository), what)

    def _registry(self, repository: str) -> str:
        return repository.partition("/")[0]

    def _client(self, repository: str) -> tuple[RegistryClient, str]:
        try:
            registry, name = split_repository(repository)
        except OciError as error:
            raise NotFoundError(self._registry(repository), str(error)) from error
        client = self._clients.get(registry)
        if client is None:
            access = self._access.get(registry, RegistryAccess())
            client = RegistryClient(registry, access, timeout_s=self._timeout_s)
            self._clients[registry] = client
        return client, name

    def _alone(self, digest: str) -> asyncio.Lock:
        """Return the lock of a digest: it is fetched once, however many want it at a time."""
        if len(self._locks) > 1000:  # noqa: PLR2004  rarely enough not to matter
            self._locks = {key: lock for key, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault(digest, asyncio.Lock())


def _blobs_of(manifest: Manifest) -> frozenset[str]:
    layers = (layer.digest for layer in manifest.layers)
    return frozenset({manifest.digest, manifest.config.digest, *layers})


def _first(group: BaseExceptionGroup[RegistryError]) -> RegistryError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, RegistryError):  # pragma: no cover  split() promised it
        raise error
    return error
