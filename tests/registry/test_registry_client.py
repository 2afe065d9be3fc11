"""What a client makes of registries that refuse, stall, redirect or lie."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from support.registry_support import Handler, Server, serving
from yarl import URL

from demo.builder import Image
from trafficmgr.registry.client import RegistryClient
from trafficmgr.registry.credentials import RegistryAccess
from trafficmgr.registry.errors import (
    AccessDeniedError,
    NotFoundError,
    RateLimitedError,
    RegistryUnreachableError,
    UntrustworthyAnswerError,
)
from trafficmgr.registry.store import BlobStore
from trafficmgr.registry.transport import Transport
from trafficmgr.wire.oci import ACCEPT, OCI_LAYER, OCI_MANIFEST, Descriptor, digest_of

IMAGE = Image(files={"a": b"1"})
DIGEST = IMAGE.digest
LOGIN = RegistryAccess(username="ci", password="s3cret")


@asynccontextmanager
async def client_of(
    handler: Handler, access: RegistryAccess | None = None, *, timeout_s: float = 10.0
) -> AsyncIterator[tuple[RegistryClient, Server]]:
    async with serving(handler) as server:
        client = RegistryClient(server.host, access or RegistryAccess(), timeout_s=timeout_s)
        try:
            yield client, server
        finally:
            await client.close()


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


async def test_a_tag_costs_one_head_with_every_type() -> None:
    async with client_of(answering(Docker_Content_Digest=DIGEST)) as (client, server):
        assert await client.digest("team/web", "stable") == DIGEST

    (request,) = server.requests
    assert (request.method, request.path) == ("HEAD", "/v2/team/web/manifests/stable")
    assert request.headers["Accept"] == ACCEPT
    assert request.headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in request.headers


async def test_a_head_without_digest_is_answered_by_get_from_then_on() -> None:
    answer = answering(body=IMAGE.manifest, Content_Type=OCI_MANIFEST)
    async with client_of(answer) as (client, server):
        assert await client.digest("team/web", "stable") == DIGEST
        assert await client.digest("team/web", "stable") == DIGEST

    assert [request.method for request in server.requests] == ["HEAD", "GET", "GET"]


@pytest.mark.parametrize("body", [b"<html>login</html>", b"{}", b"[]", b"", b"\xff" * 100])
async def test_garbage_is_never_a_digest(body: bytes) -> None:
    """A captive portal answers 200 to everything."""
    async with client_of(answering(body=body, Content_Type="text/html")) as (client, _):
        with pytest.raises(UntrustworthyAnswerError, match=r"Nothing of that answer is used"):
            await client.digest("team/web", "stable")


async def test_a_digest_header_that_is_none_is_refused() -> None:
    async with client_of(answering(Docker_Content_Digest="sha256:short")) as (client, _):
        with pytest.raises(UntrustworthyAnswerError, match='names "sha256:short"'):
            await client.digest("team/web", "stable")


async def test_a_manifest_with_another_digest_is_refused() -> None:
    async with client_of(answering(body=IMAGE.manifest, Content_Type=OCI_MANIFEST)) as (client, _):
        with pytest.raises(UntrustworthyAnswerError, match=f"hashes to {DIGEST}"):
            await client.manifest("team/web", "sha256:" + "0" * 64)


async def test_an_endless_manifest_is_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(256 * 1024))

    async with client_of(endless) as (client, _):
        with pytest.raises(UntrustworthyAnswerError, match="more than the 4194304 bytes"):
            await client.manifest("team/web", DIGEST)


async def test_not_found_quotes_what_the_registry_says() -> None:
    body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\\u001b[31m unknown"}]}'
    async with client_of(answering(404, body)) as (client, _):
        with pytest.raises(NotFoundError) as caught:
            await client.manifest("team/web", DIGEST)

    assert str(caught.value) == (
        f"registry {client.registry}: it answered 404 for team/web@{DIGEST} "
        f"(MANIFEST_UNKNOWN: manifest[31m unknown). Traffic stays as it is. "
        f"Push it, or correct the image's name."
    )


async def test_a_rate_limit_carries_its_wait() -> None:
    async with client_of(answering(429, Retry_After="17")) as (client, _):
        with pytest.raises(RateLimitedError) as caught:
            await client.digest("team/web", "stable")

    assert caught.value.retry_after_s == 17


async def test_a_wait_until_a_date_is_measured_by_the_registrys_own_clock() -> None:
    """The machine's clock may be wrong by hours; the Date beside it is not."""
    theirs = datetime(2031, 3, 1, 12, tzinfo=UTC)
    form = "%a, %d %b %Y %H:%M:%S GMT"
    until = (theirs + timedelta(seconds=90)).strftime(form)
    answer = answering(503, Retry_After=until, Date=theirs.strftime(form))
    async with client_of(answer) as (client, _):
        with pytest.raises(RegistryUnreachableError) as caught:
            await client.digest("team/web", "stable")

    assert caught.value.retry_after_s == 90


async def test_a_wait_in_the_body_counts() -> None:
    body = b"TOOMANYREQUESTS: retry-after: 1m2s, allowed: 44000/minute"
    async with client_of(answering(429, body)) as (client, _):
        with pytest.raises(RateLimitedError) as caught:
            await client.manifest("team/web", DIGEST)

    assert caught.value.retry_after_s == 62


async def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = RegistryClient(f"127.0.0.1:{taken.getsockname()[1]}", RegistryAccess())
        with pytest.raises(RegistryUnreachableError, match="Connection refused"):
            await client.digest("team/web", "stable")
        await client.close()


async def test_a_registry_that_does_not_answer_is_given_up() -> None:
    async def stall(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with client_of(stall, timeout_s=0.2) as (client, _):
        with pytest.raises(RegistryUnreachableError, match=r"did not answer within 0.2 s"):
            await client.digest("team/web", "stable")


async def test_a_body_that_trickles_for_ever_is_given_up() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    async with client_of(trickle, timeout_s=0.3) as (client, _):
        with pytest.raises(RegistryUnreachableError, match=r"takes longer than 0.3 s"):
            await client.manifest("team/web", DIGEST)


async def test_a_blob_that_breaks_off_is_unreachable_and_not_kept(store: BlobStore) -> None:
    blob = Descriptor(media_type=OCI_LAYER, digest=digest_of(b"0" * 100), size=100)

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"0" * 50)
        assert request.transport is not None
        request.transport.close()
        return response

    async with client_of(break_off) as (client, _):
        with pytest.raises(RegistryUnreachableError, match="broke"):
            await client.download("team/web", blob, store)

    assert not store.has(blob.digest)


# -- redirects and credentials --------------------------------------------------------------------


def basic_then(target: str) -> Handler:
    """Ask for Basic; whoever shows it is redirected to `target`."""

    async def answer(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        return web.Response(status=307, headers={"Location": target})

    return answer


async def test_credentials_are_not_sent_to_the_host_of_a_redirect(store: BlobStore) -> None:
    content = b"layer"
    blob = Descriptor(media_type=OCI_LAYER, digest=digest_of(content), size=len(content))

    async with serving(answering(body=content), "127.0.0.2") as storage:
        target = f"http://{storage.host}/bucket/blob?sig=a%2Fb"
        async with client_of(basic_then(target), LOGIN) as (client, server):
            await client.download("team/web", blob, store)

    assert store.has(blob.digest)
    assert "Authorization" in server.requests[-1].headers
    (redirected,) = storage.requests
    assert "Authorization" not in redirected.headers
    assert redirected.raw_path == "/bucket/blob?sig=a%2Fb"


async def test_a_host_behind_a_redirect_cannot_ask_for_credentials(store: BlobStore) -> None:
    blob = Descriptor(media_type=OCI_LAYER, digest=DIGEST, size=1)

    async def ask(request: web.Request) -> web.Response:
        realm = f'Bearer realm="http://{request.host}/token"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async with (
        serving(ask, "127.0.0.2") as storage,
        client_of(basic_then(f"http://{storage.host}/"), LOGIN) as (client, _),
    ):
        for _ in range(2):  # the first time it has yet to learn what its own registry wants
            with pytest.raises(AccessDeniedError):
                await client.download("team/web", blob, store)

    assert all("Authorization" not in request.headers for request in storage.requests)


@pytest.mark.parametrize(
    "target",
    ["http://registry.example.com/x", "ftp://127.0.0.1/x", "http://[", "file:///etc/passwd"],
)
async def test_a_redirect_to_plain_http_or_nonsense_is_not_followed(target: str) -> None:
    async with client_of(answering(307, Location=target)) as (client, _):
        with pytest.raises(UntrustworthyAnswerError):
            await client.digest("team/web", "stable")


def test_a_redirect_from_https_to_http_is_not_followed_even_on_loopback() -> None:
    transport = Transport("127.0.0.1:5000", RegistryAccess(ca_file="ca.pem"))
    with pytest.raises(UntrustworthyAnswerError, match="from https to http"):
        transport._next(URL("https://127.0.0.1:5000/v2/"), "http://127.0.0.1:5000/v2/")


async def test_endless_redirects_end() -> None:
    async with client_of(answering(307, Location="/again")) as (client, server):
        with pytest.raises(UntrustworthyAnswerError, match="more than 5 redirects"):
            await client.digest("team/web", "stable")

    assert len(server.requests) == 6


def test_only_loopback_and_insecure_registries_are_asked_by_http() -> None:
    def scheme(registry: str, **access: object) -> str:
        client = RegistryClient(registry, RegistryAccess(**access))  # type: ignore[arg-type]
        return str(client._transport.base)

    assert scheme("127.0.0.9:5000") == "http://127.0.0.9:5000"
    assert scheme("localhost:5000") == "http://localhost:5000"
    assert scheme("[::1]:5000") == "http://[::1]:5000"
    assert scheme("registry.example.com") == "https://registry.example.com"
    assert scheme("localhost.example.com") == "https://localhost.example.com"
    assert scheme("127.0.0.1.example.com") == "https://127.0.0.1.example.com"
    assert scheme("10.0.0.1:5000", is_insecure=True) == "http://10.0.0.1:5000"
    assert scheme("docker.io") == "https://registry-1.docker.io"
