"""Whom a request is for: hosts, wildcards, paths, and what nobody has."""

import pytest
from support.front_support import publish, says
from support.proxy_support import Rig, with_proxy

from trafficmgr.core.traffic import HttpPolicy


async def body_of(rig: Rig, host: str, path: str = "/") -> bytes:
    client = await rig.client()
    answer = await client.get(path, host)
    await client.close()
    return answer.body if answer.status == 200 else b"%d" % answer.status


async def named(rig: Rig, endpoint: str, *hosts: str, paths: tuple[str, ...] = ()) -> None:
    app = await rig.app(f"{endpoint}-1", says(endpoint))
    publish(rig, endpoint, hosts, [app], http=HttpPolicy(paths=paths))


@with_proxy
async def test_a_wildcard_is_one_label(rig: Rig) -> None:
    """As it is in certificates: who has one for the wildcard can serve all that is let in."""
    await named(rig, "all", "*.apps.test")
    await named(rig, "one", "one.apps.test")

    assert await body_of(rig, "any.apps.test") == b"all"
    assert await body_of(rig, "ANY.apps.test.:8080") == b"all"
    assert await body_of(rig, "one.apps.test") == b"one"
    assert await body_of(rig, "apps.test") == b"404"
    assert await body_of(rig, "a.b.apps.test") == b"404"
    assert await body_of(rig, ".apps.test") == b"all"


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/", b"web"),
        ("/apis", b"web"),
        ("/x/../api", b"web"),
        ("/%61pi", b"web"),
        ("/?/api", b"web"),
        ("/api", b"api"),
        ("/api?a=b", b"api"),
        ("/api/", b"api"),
        ("/api/v1", b"api"),
        ("/api/v2", b"v2"),
        ("/api/v2/x", b"v2"),
        ("/api/v20", b"api"),
        ("http://shop.test/api/v2", b"v2"),
    ],
)
@with_proxy
async def test_the_longest_path_of_whole_segments_wins(
    rig: Rig, path: str, endpoint: bytes
) -> None:
    await named(rig, "api", "shop.test", paths=("/api", "/elsewhere"))
    await named(rig, "web", "shop.test")
    await named(rig, "v2", "shop.test", paths=("/api/v2/",))

    assert await body_of(rig, "shop.test", path) == endpoint


@with_proxy
async def test_a_path_that_nobody_has_is_404_and_the_connection_lives_on(rig: Rig) -> None:
    await named(rig, "api", "shop.test", paths=("/api",))
    client = await rig.client()

    answer = await client.get("/")
    assert answer.status == 404
    assert answer.body == b"404 no endpoint has this path of the host\n"
    assert (await client.get("/api")).body == b"api"
    answer = await client.ask(b"OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    assert answer.status == 404


@with_proxy
async def test_paths_come_and_go_with_their_tables(rig: Rig) -> None:
    await named(rig, "web", "shop.test")
    await named(rig, "api", "shop.test", paths=("/api",))
    client = await rig.client()
    assert (await client.get("/api")).body == b"api"

    await named(rig, "api", "shop.test", paths=("/v2",))
    assert (await client.get("/api")).body == b"web"
    assert (await client.get("/v2")).body == b"api"

    await named(rig, "api", "api.test")
    assert (await client.get("/v2")).body == b"web"


@with_proxy
async def test_a_host_that_moves_leads_to_whoever_has_something_to_reach(rig: Rig) -> None:
    """Whichever of the two tables comes first."""
    await named(rig, "old", "shop.test")
    await named(rig, "new", "shop.test")
    assert await body_of(rig, "shop.test") == b"new"

    publish(rig, "old", ("shop.test",), [])
    assert await body_of(rig, "shop.test") == b"new"

    publish(rig, "new", (), [])
    assert await body_of(rig, "shop.test") == b"503"


@with_proxy
async def test_previews_follow_paths_and_wildcards(rig: Rig) -> None:
    web, api = await rig.app("web-1", says("web")), await rig.app("api-1", says("api"))
    web_2, api_2 = await rig.app("web-2", says("web 2")), await rig.app("api-2", says("api 2"))
    publish(rig, "web", ("*.shop.test",), [web], preview=[web_2])
    publish(rig, "api", ("*.shop.test",), [api], http=HttpPolicy(paths=("/api",)), preview=[api_2])

    assert await body_of(rig, "preview.a.shop.test") == b"web 2"
    assert await body_of(rig, "preview.a.shop.test", "/api") == b"api 2"
    assert await body_of(rig, "a.shop.test", "/api") == b"api"
    publish(rig, "api", ("*.shop.test",), [api], http=HttpPolicy(paths=("/api",)))
    assert await body_of(rig, "preview.a.shop.test", "/api") == b"web 2"
    publish(rig, "web", ("*.shop.test",), [web])
    assert await body_of(rig, "preview.a.shop.test") == b"404"


@with_proxy
async def test_the_name_of_an_endpoint_goes_before_a_wildcard_and_a_preview(rig: Rig) -> None:
    app, other = await rig.app("shop-1", says("shop")), await rig.app("shop-2", says("preview"))
    publish(rig, "shop", ("shop.test",), [app], preview=[other])
    await named(rig, "all", "*.shop.test")

    assert await body_of(rig, "preview.shop.test") == b"preview"
    await named(rig, "named", "preview.shop.test")
    assert await body_of(rig, "preview.shop.test") == b"named"
