"""Who a request comes from: what groups are told, and whom the proxy believes."""

import pytest
from support.front_support import publish, take_front
from support.proxy_support import Message, Rig, with_proxy

from trafficmgr.core.model import Affinity
from trafficmgr.core.routing import bucket_of, client_of
from trafficmgr.core.traffic import Front
from trafficmgr.dataplane.identity import Identity, RequestNames, Trust, bare
from trafficmgr.wire.http_request import Request

TRUSTING = Front(trusted_proxies=("127.0.0.0/8", "10.0.0.0/8"))


async def told(rig: Rig, *fields: str, times: int = 1) -> Message:
    """Return what a group gets to see of a request with these fields."""
    app = await rig.app(f"shop-{rig.generation}")
    publish(rig, "shop", ("shop.test",), [app])
    client = await rig.client()
    head = "".join(f"{field}\r\n" for field in fields)
    for _ in range(times):
        await client.ask(f"GET / HTTP/1.1\r\nHost: shop.test\r\n{head}\r\n".encode())
    return app.requests[-1]


CLAIMS = (
    "X-Forwarded-For: 192.0.2.7, 10.1.1.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public.test",
    "X-Forwarded-Port: 443",
    "X-Real-IP: 203.0.113.1",
    "Forwarded: for=192.0.2.7;proto=https",
    "X-Request-Id: theirs",
)


@with_proxy
async def test_a_strangers_claims_are_replaced(rig: Rig) -> None:
    fields = (await told(rig, *CLAIMS)).fields

    assert fields["x-forwarded-for"] == fields["x-real-ip"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "http"
    assert fields["x-forwarded-host"] == "shop.test"
    assert fields["forwarded"] == 'for=127.0.0.1;host="shop.test";proto=http'
    assert "x-forwarded-port" not in fields
    assert fields["x-request-id"] != "theirs"


@with_proxy
async def test_a_trusted_proxy_is_believed_and_added_to(rig: Rig) -> None:
    take_front(rig, TRUSTING)

    message = await told(rig, *CLAIMS)

    assert message.fields["x-forwarded-for"] == "192.0.2.7, 10.1.1.1, 127.0.0.1"
    assert message.fields["x-real-ip"] == "192.0.2.7"
    assert message.fields["x-forwarded-proto"] == "https"
    assert message.fields["x-forwarded-host"] == "public.test"
    assert message.fields["x-forwarded-port"] == "443"
    assert message.fields["forwarded"] == (
        'for=192.0.2.7;proto=https, for=127.0.0.1;host="shop.test";proto=http'
    )
    assert message.fields["x-request-id"] == "theirs"
    names = [line.partition(b":")[0].lower() for line in message.raw.split(b"\r\n")]
    assert len(names) - 2 == len(set(names)) - 1, "a field was sent twice"


@with_proxy
async def test_a_trusted_proxy_that_says_nothing_is_the_client(rig: Rig) -> None:
    take_front(rig, TRUSTING)

    fields = (await told(rig)).fields

    assert fields["x-forwarded-for"] == fields["x-real-ip"] == "127.0.0.1"
    assert fields["x-request-id"]


@with_proxy
async def test_trust_is_for_connections_that_come_after_it(rig: Rig) -> None:
    app = await rig.app("shop-1")
    publish(rig, "shop", ("shop.test",), [app])
    before = await rig.client()
    await before.get()
    take_front(rig, TRUSTING)
    after = await rig.client()

    for client in (before, after):
        await client.ask(b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")

    assert app.requests[1].fields["x-real-ip"] == "127.0.0.1"
    assert app.requests[2].fields["x-real-ip"] == "192.0.2.7"


@with_proxy
async def test_requests_have_names_of_their_own(rig: Rig) -> None:
    app = await rig.app("shop-1")
    publish(rig, "shop", ("shop.test",), [app])
    for _ in range(2):
        client = await rig.client()
        for _ in range(3):
            await client.get()

    assert len({request.fields["x-request-id"] for request in app.requests}) == 6


@with_proxy
async def test_names_can_be_left_to_others(rig: Rig) -> None:
    take_front(rig, Front(names_requests=False))

    fields = (await told(rig, "X-Request-Id: theirs")).fields

    assert fields["x-request-id"] == "theirs"


@with_proxy
async def test_via_is_added_if_wanted(rig: Rig) -> None:
    assert "via" not in (await told(rig)).fields
    take_front(rig, Front(has_via=True))

    message = await told(rig, "Via: 1.1 cdn", times=2)

    assert message.raw.count(b"Via: 1.1 cdn\r\n") == 1
    assert message.raw.index(b"Via: 1.1 cdn") < message.raw.index(b"Via: 1.1 trafficmgr\r\n")


@with_proxy
async def test_answers_say_the_same(rig: Rig) -> None:
    old = await rig.app("old", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nVia: 1.1 cdn\r\n\r\nok")
    rig.route((100, [await rig.app("shop-1")]))
    publish(rig, "old", ("old.test",), [old])
    client = await rig.client()
    assert "via" not in (await client.get()).fields
    take_front(rig, Front(has_via=True))

    assert (await client.get()).fields["via"] == "1.1 trafficmgr"
    answer = await client.get(host="old.test")

    assert answer.raw.index(b"Via: 1.1 cdn") < answer.raw.index(b"Via: 1.0 trafficmgr\r\n")


@with_proxy
async def test_what_is_told_follows_the_host_of_each_request(rig: Rig) -> None:
    app = await rig.app("shop-1")
    publish(rig, "shop", ("shop.test", "other.test"), [app])
    client = await rig.client()

    for host in ("shop.test", "other.test:81", "shop.test"):
        await client.get(host=host)

    hosts = [request.fields["x-forwarded-host"] for request in app.requests]
    assert hosts == ["shop.test", "other.test:81", "shop.test"]
    assert 'host="other.test:81"' in app.requests[1].fields["forwarded"]


@with_proxy
async def test_affinity_goes_by_the_client_behind_a_trusted_proxy(rig: Rig) -> None:
    take_front(rig, TRUSTING)
    app = await rig.app("shop-1")
    publish(rig, "shop", ("shop.test",), [app])
    table = rig.book.by_endpoint["shop"].table
    salted = table.but(generation=99, affinity=Affinity.client, salt="salt")
    rig.book.apply(salted)
    client = await rig.client()
    (connection,) = rig.server.connections

    seen = []
    for address in ("192.0.2.7", "192.0.2.8"):
        await client.ask(
            f"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: {address}\r\n\r\n".encode()
        )
        seen.append(connection.bucket("salt"))

    assert seen == [bucket_of(client_of(f"192.0.2.{n}"), "salt") for n in (7, 8)]


def identity(peer: str, *networks: str, is_secure: bool = False) -> Identity:
    trust = Trust(networks)
    return Identity(peer, trust, RequestNames(), is_secure=is_secure, has_via=False)


def request(**claims: str) -> Request:
    found = Request(b"GET", b"/", b"shop.test", [])
    found.authority = b"shop.test"
    found.claims = {
        name.replace("_", "-").encode(): value.encode() for name, value in claims.items()
    }
    return found


@pytest.mark.parametrize(
    ("claims", "client"),
    [
        ({}, "10.0.0.1"),
        ({"x_forwarded_for": "192.0.2.7"}, "192.0.2.7"),
        ({"x_forwarded_for": "6.6.6.6, 192.0.2.7, 10.0.0.2"}, "192.0.2.7"),
        ({"x_forwarded_for": "10.0.0.3,10.0.0.2"}, "10.0.0.3"),
        ({"x_forwarded_for": "192.0.2.7:4711"}, "192.0.2.7"),
        ({"x_forwarded_for": "[2001:db8::7]:4711"}, "2001:db8::7"),
        ({"x_forwarded_for": "2001:db8::7"}, "2001:db8::7"),
        ({"x_forwarded_for": "unknown, 10.0.0.2"}, "10.0.0.2"),
        ({"x_forwarded_for": "<script>"}, "10.0.0.1"),
        ({"x_forwarded_for": "192.0.2.7", "x_real_ip": "6.6.6.6"}, "192.0.2.7"),
        ({"forwarded": 'for="[2001:db8::7]:4711";proto=https'}, "2001:db8::7"),
        ({"forwarded": "for=6.6.6.6;by=x, For=192.0.2.7, for=10.0.0.2"}, "192.0.2.7"),
        ({"forwarded": "proto=https"}, "10.0.0.1"),
        ({"x_real_ip": "192.0.2.7"}, "192.0.2.7"),
    ],
)
def test_the_client_is_the_last_one_who_is_no_trusted_proxy(
    claims: dict[str, str], client: str
) -> None:
    who = identity("10.0.0.1", "10.0.0.0/8")

    lines = who.lines(request(**claims))

    assert who.client == client
    assert b"X-Real-IP: %b\r\n" % client.encode() in lines


@pytest.mark.parametrize(
    ("claims", "is_secure"),
    [
        ({}, False),
        ({"x_forwarded_proto": "https"}, True),
        ({"x_forwarded_proto": "http, HTTPS"}, True),
        ({"x_forwarded_proto": "gopher"}, False),
        ({"forwarded": "for=192.0.2.7;proto=https"}, True),
        ({"forwarded": 'proto=https, proto="http"'}, False),
        ({"x_forwarded_proto": "http", "forwarded": "proto=https"}, False),
    ],
)
def test_a_trusted_proxy_says_whether_the_client_is_on_https(
    claims: dict[str, str], is_secure: bool
) -> None:
    assert identity("10.0.0.1", "10.0.0.0/8").is_secure(request(**claims)) is is_secure
    assert identity("192.0.2.1", "10.0.0.0/8").is_secure(request(**claims)) is False


def test_a_client_stays_the_client_of_its_own_request_only() -> None:
    who = identity("10.0.0.1", "10.0.0.0/8")

    who.lines(request(x_forwarded_for="192.0.2.7"))
    who.lines(request())

    assert who.client == "10.0.0.1"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        (" 192.0.2.7:80 ", "192.0.2.7"),
        ("[::1]:80", "::1"),
        ("unknown", "unknown"),
    ],
)
def test_addresses_are_told_bare(written: str, address: str) -> None:
    assert bare(written) == address


def test_an_ipv6_peer_is_in_brackets_where_rfc_7239_wants_it() -> None:
    lines = identity("2001:db8::7", is_secure=True).lines(request())

    assert b'Forwarded: for="[2001:db8::7]";host="shop.test";proto=https\r\n' in lines
    assert b"X-Forwarded-For: 2001:db8::7\r\n" in lines
