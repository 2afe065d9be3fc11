"""Images: on the engine by digest, and pinned there.

An image is pulled by the digest of its manifest, so that the engine itself proves that it is the
one. It is then tagged `trafficmgr.local/ENDPOINT:DIGEST`, because an image without a tag is
dangling to the engine, and the next `docker image prune` takes it away: the one to roll back to
first (field/groups.md 3.2). What is pinned is never asked of the registry again.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ImageDigest
from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError
from trafficmgr.runtimes.docker.conversation import converse
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import NOT_FOUND, EngineRefusal

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
    """The images of one engine."""

    def __init__(self, engine: Engine, credentials: Credentials) -> None:
        """Pull with these credentials."""
        self._engine = engine
        self._credentials = credentials
        self._known: dict[str, PinnedImage] = {}

    async def get(self, endpoint: str, image: ImageDigest) -> PinnedImage:
        """Return the image, after pulling and pinning it if it is not here.

        Raises:
            RuntimeFailure: There is no such image, or we may not have it.
            RuntimeUnknownError: The engine or the registry can't be asked.
        """
        name = pin(endpoint, image)
        known = self._known.get(name) or await self._inspect(name, name)
        if known is None:
            known = await self._fetch(name, f"{image.repository}@{image.platform_digest}")
        self._known[name] = known
        return known

    def forget(self) -> None:
        """Look for all of them anew: the engine says that one is gone."""
        self._known.clear()

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
        try:
            found = await self._engine.call(lambda client: client.inspect_image(reference))  # type: ignore[no-untyped-call]  # its stubs have no types here
        except EngineRefusal as refusal:
            if refusal.status == NOT_FOUND:
                return None
            raise
        return _pinned(name, found)

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


def pin(endpoint: str, image: ImageDigest) -> str:
    """Return the tag of ours that keeps an image on the engine."""
    digest = image.platform_digest.partition(":")[2][:_DIGEST_CHARS]
    return f"{_OUR_REGISTRY}/{_UNWANTED.sub('-', endpoint.lower())}:{digest}"


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
