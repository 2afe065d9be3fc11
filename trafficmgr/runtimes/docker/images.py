"""Images: on the engine by digest, and pinned there.

An image is pulled by the digest of its manifest, so that the engine itself proves that it is the
one. It is then tagged `trafficmgr.local/INSTANCE/ENDPOINT:DIGEST`, because an image without a tag
is dangling to the engine, and the next `docker image prune` takes it away: the one to roll back to
first (field/groups.md 3.2). What is pinned is never asked of the registry again.

An image that nobody needs any more loses its pin. If that was its last tag, so that it is dangling,
and no container is made of it, it goes: the name that the pull by digest has left would keep it on
the disk for ever. Images that never had our tag, or have another one, stay. Looking for an image
and unpinning it take turns, and a start holds its images (`in_use`) until its containers are made.
"""

import asyncio
import base64
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import ImagesRemoved, RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.docker.conversation import converse
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import CONFLICT, NOT_FOUND, EngineRefusal

Credentials = Callable[[str], Awaitable[tuple[str, str] | None]]
"""Repository -> user and password, if there are any."""

_OUR_REGISTRY = "trafficmgr.local"
"""No registry: nothing can be pulled from it or pushed to it by mistake."""
_DIGEST_CHARS = 12

_UNWANTED = re.compile(r"[^a-z0-9._-]+")
_REGISTRY_AWAY = re.compile(
    r"connection refused|connection reset|no such host|network is unreachable|timeout|timed out"
    r"|deadline exceeded|server misbehaving|\bEOF\b|toomanyrequests|too many requests"
    r"|no route to host|50[0234] |service unavailable|bad gateway|unexpected http status",
    re.IGNORECASE,
)
_NOT_ALLOWED = re.compile(
    r"unauthorized|denied|authentication required|no basic auth", re.IGNORECASE
)


class PinnedImage(Noun):
    """An image that is on the engine, and what it says about itself."""

    name: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = {}
    user: str = ""
    working_dir: str = ""


class Images:
    """The images of one instance on one engine."""

    def __init__(self, engine: Engine, credentials: Credentials, *, instance: str) -> None:
        """Pull with these credentials, and pin for this instance."""
        self._engine = engine
        self._credentials = credentials
        self._instance = instance
        self._known: dict[str, PinnedImage] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._uses: Counter[str] = Counter()

    @contextmanager
    def in_use(self, images: Iterable[ImageDigest]) -> Iterator[None]:
        """Unpin none of these: containers are about to be made of them."""
        digests = [_brief(image.platform_digest) for image in images]
        self._uses.update(digests)
        try:
            yield
        finally:
            self._uses -= Counter(digests)

    async def get(self, endpoint: str, image: ImageDigest) -> PinnedImage:
        """Return the image, after pulling and pinning it if it is not here.

        Raises:
            RuntimeFailure: There is no such image, or we may not have it.
            RuntimeUnknownError: The engine or the registry can't be asked.
        """
        name = pin(self._instance, endpoint, image)
        async with self._turn(_brief(image.platform_digest)):
            known = self._known.get(name) or await self._inspect(name, name)
            if known is None:
                known = await self._fetch(name, f"{image.repository}@{image.platform_digest}")
            self._known[name] = known
        return known

    def forget(self) -> None:
        """Look for all of them anew: the engine says that one is gone."""
        self._known.clear()

    async def keep(self, digests: frozenset[str]) -> ImagesRemoved:
        """Unpin all images but those of these platform digests, and those in use.

        How many bytes that frees is the engine's secret: images share layers.

        Raises:
            RuntimeFailure: The engine refuses.
            RuntimeUnknownError: The engine can't be asked.
        """
        wanted = {_brief(digest) for digest in digests}
        gone = 0
        for digest, (identity, names) in (await self._pins()).items():
            if digest not in wanted:
                async with self._turn(digest):
                    gone += await self._unpin(digest, identity, names)
        return ImagesRemoved(images=gone)

    async def _pins(self) -> dict[str, tuple[str, list[str]]]:
        """Return digest -> the image's id and its pins, of all that this instance has pinned."""
        ours = repository(self._instance, "")
        listed = await self._engine.call(lambda client: client.images(name=f"{ours}*"))
        found: dict[str, tuple[str, list[str]]] = {}
        for image in listed:
            for name in image.get("RepoTags") or ():
                if name.startswith(ours):
                    digest = name.rpartition(":")[2]
                    found.setdefault(digest, (image["Id"], []))[1].append(name)
        return found

    async def _unpin(self, digest: str, identity: str, names: Iterable[str]) -> bool:
        """Remove an image's pins, and itself if it is dangling then; False if it is in use."""
        if self._uses[digest]:
            return False
        containers = await self._engine.call(lambda client: client.containers(all=True))
        if any(one["ImageID"] == identity for one in containers):
            return False
        for name in names:
            self._known.pop(name, None)
            await self._remove(name)
        left = await self._look(identity)
        if left is not None and not left.get("RepoTags"):
            for reference in left.get("RepoDigests") or ():
                await self._remove(reference)
        return True

    async def _remove(self, reference: str) -> None:
        """Remove a name of an image, and the image with its last one unless somebody needs it."""
        try:
            await self._engine.call(lambda client: client.remove_image(reference))
        except EngineRefusal as refusal:
            if refusal.status not in {NOT_FOUND, CONFLICT}:
                raise

    def _turn(self, digest: str) -> asyncio.Lock:
        return self._turns.setdefault(digest, asyncio.Lock())

    async def _fetch(self, name: str, reference: str) -> PinnedImage:
        if await self._inspect(reference, name) is None:
            await self.pull(reference)
        repository, _, tag = name.rpartition(":")
        await self._engine.call(lambda client: client.tag(reference, repository, tag, force=True))
        found = await self._inspect(name, name)
        if found is None:
            raise RuntimeFailure(
                f"docker: the image {reference} was gone as soon as it had been pulled. Traffic "
                "stays where it is. Look what removes images on this machine."
            )
        return found

    async def _inspect(self, reference: str, name: str) -> PinnedImage | None:
        found = await self._look(reference)
        return None if found is None else _pinned(name, found)

    async def _look(self, reference: str) -> dict[str, Any] | None:
        """Return what the engine says of an image; None if it does not have it."""
        try:
            found: dict[str, Any] = await self._engine.call(
                lambda client: client.inspect_image(reference)  # type: ignore[no-untyped-call]  # its stubs have no types here
            )
        except EngineRefusal as refusal:
            if refusal.status == NOT_FOUND:
                return None
            raise
        return found

    async def pull(self, reference: str) -> None:
        """Have the engine pull an image, by digest or tag.

        Raises:
            RuntimeFailure: There is no such image, or we may not have it.
            RuntimeUnknownError: The engine or the registry can't be asked.
        """
        repository, _, digest = reference.partition("@")
        if not digest and ":" not in repository.rpartition("/")[2]:
            digest = "latest"  # the engine would pull every tag there is
        found = await self._credentials(repository)
        headers = {} if found is None else {"X-Registry-Auth": _authorization(repository, *found)}
        try:
            async with converse(
                self._engine,
                "POST",
                "/images/create",
                query={"fromImage": repository} | ({"tag": digest} if digest else {}),
                headers=headers,
                answers_within_s=None,  # it begins to answer when the registry has
            ) as answer:
                async for progress in answer.documents():
                    if "error" in progress:
                        raise no_pull(reference, str(progress["error"]))
        except EngineRefusal as refusal:
            raise no_pull(reference, refusal.said) from refusal


def pin(instance: str, endpoint: str, image: ImageDigest) -> str:
    """Return the tag of an instance that keeps an image on the engine."""
    return f"{repository(instance, endpoint)}:{_brief(image.platform_digest)}"


def repository(instance: str, endpoint: str) -> str:
    """Return where the pins of an endpoint are; with "" it is what all of an instance begin with.

    The instance is part of it, so that no installation unpins what another needs. The pause image
    (`pause.py`) has a shorter name, and is none of them.
    """
    return "/".join((_OUR_REGISTRY, *(_UNWANTED.sub("-", n.lower()) for n in (instance, endpoint))))


def _brief(digest: str) -> str:
    return digest.partition(":")[2][:_DIGEST_CHARS]


def _pinned(name: str, found: dict[str, Any]) -> PinnedImage:
    config = found.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return PinnedImage(
        name=name,
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        env={key: value for key, _, value in pairs},
        user=config.get("User") or "",
        working_dir=config.get("WorkingDir") or "",
    )


def _authorization(repository: str, user: str, password: str) -> str:
    registry = repository.partition("/")[0]
    told = {"username": user, "password": password, "serveraddress": registry}
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode()


def no_pull(reference: str, said: str) -> RuntimeFailure:
    """Return the error that a failed pull is: for good, or only now."""
    said = said.strip().rstrip(".")
    if _NOT_ALLOWED.search(said):
        return RuntimeFailure(
            f"docker: the image {reference} can't be pulled: {said}. Traffic stays where it is. "
            "Correct the credentials of its registry under `registries`."
        )
    if _REGISTRY_AWAY.search(said):
        return RuntimeUnknownError(
            f"docker: the image {reference} can't be pulled now: {said}. Nothing was started, and "
            "traffic stays where it is. Look whether the engine reaches the registry; it is tried "
            "again."
        )
    return RuntimeFailure(
        f"docker: the image {reference} can't be pulled: {said}. Traffic stays where it is. Look "
        "whether the registry still has exactly this image; push it again, or another one."
    )
