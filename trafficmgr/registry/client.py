"""One registry, as the rest of the house sees it: a tag's digest, documents, blobs.

The steady state is one HEAD per image and interval. Whatever comes back is hashed before anyone
sees it, and an answer that has no digest is an error, never "changed".

Source: distribution-spec v1.1 "Pull"; field/registries.md 3.2 and 3.6.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from trafficmgr.registry.auth import Authorizer
from trafficmgr.registry.credentials import RegistryAccess
from trafficmgr.registry.errors import StoreError, UntrustworthyAnswerError
from trafficmgr.registry.store import BlobStore, WrongContentError
from trafficmgr.registry.transport import ANSWER_TIMEOUT_S, Transport, read_limited, refusal
from trafficmgr.wire.oci import (
    ACCEPT,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Index,
    Manifest,
    OciError,
    decode_manifest,
    is_digest,
)
from trafficmgr.wire.oci_headers import parse_length

READ_BYTES = 128 * 1024

_OK = 200
_UNAUTHORIZED = 401
_STALE_TOKEN = frozenset({400, 401, 403})
"""ECR Public answers 400 to a token that ran out, ECR 403."""


class RegistryClient:
    """One registry host and one session with it. Every method raises RegistryError."""

    def __init__(
        self, registry: str, access: RegistryAccess, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self.registry = registry
        self._transport = Transport(registry, access, timeout_s=timeout_s)
        self._authorizer = Authorizer(self._transport)
        self._is_head_without_digest = False

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def digest(self, repository: str, tag: str) -> str:
        """Return the digest that a tag names now, by HEAD.

        Some registries leave the digest out of a HEAD; they are asked by GET, and from then on
        at once.

        Raises:
            RegistryError: It can't be known now.
        """
        if not self._is_head_without_digest:
            digest = await self._head(repository, tag)
            if digest:
                return digest
            self._is_head_without_digest = True
        content_type, body = await self._document(repository, tag)
        return self._decode(repository, tag, body, content_type, None).digest

    async def manifest(self, repository: str, digest: str) -> tuple[bytes, Manifest | Index]:
        """Return a manifest or an index by its digest, as bytes and decoded.

        Raises:
            RegistryError: It can't be had, or is not what the digest says.
        """
        content_type, body = await self._document(repository, digest)
        return body, self._decode(repository, digest, body, content_type, digest)

    async def download(self, repository: str, blob: Descriptor, store: BlobStore) -> None:
        """Bring a blob into the store, checked for its size and its digest.

        Raises:
            RegistryError: It can't be had, is not what it must be, or can't be kept.
        """
        url = self._url(repository, "blobs", blob.digest)
        what = f"{repository}@{blob.digest}"
        try:
            async with self._ask("GET", url, repository, what) as response:
                _check_length(response, blob.size)
                await store.save(blob.digest, blob.size, _chunks(response))
        except WrongContentError as error:
            said = f"for {what} it sent {error}"
            raise UntrustworthyAnswerError(self.registry, said) from error
        except OSError as error:
            said = f"{what} can't be kept in {store.root} ({error.strerror or error})"
            raise StoreError(self.registry, said) from error

    async def _head(self, repository: str, tag: str) -> str:
        url = self._url(repository, "manifests", tag)
        what = f"{repository}:{tag}"
        async with self._ask("HEAD", url, repository, what, {"Accept": ACCEPT}) as response:
            digest = response.headers.get("Docker-Content-Digest", "").strip()
        if digest and not is_digest(digest):
            said = f'for {what} it names "{digest[:80]}", which is no sha256 digest'
            raise UntrustworthyAnswerError(self.registry, said)
        return digest

    async def _document(self, repository: str, reference: str) -> tuple[str, bytes]:
        url = self._url(repository, "manifests", reference)
        what = f"{repository}{'@' if is_digest(reference) else ':'}{reference}"
        async with self._ask("GET", url, repository, what, {"Accept": ACCEPT}) as response:
            body = await read_limited(
                self.registry, response, MAX_DOCUMENT_BYTES, self._transport.timeout_s
            )
            return response.headers.get("Content-Type", ""), body

    def _decode(
        self, repository: str, reference: str, body: bytes, content_type: str, digest: str | None
    ) -> Manifest | Index:
        try:
            return decode_manifest(body, content_type, digest)
        except OciError as error:
            said = f"its answer for {repository} {reference} can't be used: {error}"
            raise UntrustworthyAnswerError(self.registry, said) from error

    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        url: URL,
        repository: str,
        what: str,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a good answer; get in first if the registry wants that."""
        shown = await self._authorizer.authorization(repository)
        async with self._transport.answer(
            method, url, headers=headers, authorization=shown
        ) as response:
            if response.status == _OK:
                yield response
                return
            again = await self._authorize_again(repository, shown, response)
            if again is None:
                raise await refusal(self.registry, response, what, self._transport.timeout_s)
        async with self._transport.answer(
            method, url, headers=headers, authorization=again
        ) as response:
            if response.status != _OK:
                raise await refusal(self.registry, response, what, self._transport.timeout_s)
            yield response

    async def _authorize_again(
        self, repository: str, shown: str | None, response: aiohttp.ClientResponse
    ) -> str | None:
        """Return another Authorization header to try once, or None if there is no point."""
        if response.url.origin() != self._transport.base.origin():
            return None
        is_token = shown is not None and shown.startswith("Bearer ")
        if response.status not in (_STALE_TOKEN if is_token else {_UNAUTHORIZED}):
            return None
        if shown is not None and is_token:
            self._authorizer.forget(shown)
        if response.status == _UNAUTHORIZED:
            self._authorizer.learn(", ".join(response.headers.getall("WWW-Authenticate", [])))
        again = await self._authorizer.authorization(repository)
        return None if again == shown else again

    def _url(self, repository: str, kind: str, reference: str) -> URL:
        return self._transport.base / "v2" / repository / kind / reference


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in response.content.iter_chunked(READ_BYTES):
        yield chunk


def _check_length(response: aiohttp.ClientResponse, size: int) -> None:
    """Refuse a wrong body before it is read."""
    length = parse_length(response.headers.get("Content-Length", ""))
    if length not in (None, size):
        raise WrongContentError(f"{length} bytes where {size} must be")
