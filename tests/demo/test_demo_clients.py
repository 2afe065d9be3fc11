"""The demo's clients tell the truth: what failed, what was cut, what was sent again, and when."""

import socket

import pytest
from support.demo_support import (
    CLOSE,
    GOOD,
    HALF,
    OWN_ERROR,
    UNAVAILABLE,
    NameServer,
    plan,
    scripted,
    seen_by,
)

from demo import resolver
from demo.ledger import Batch, now
from demo.load import DnsClient, ProxyClient
from demo.versions import FLAWED_PAGE, PAGES


async def test_a_proxy_client_keeps_its_connection() -> None:
    async with scripted() as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=5)

    assert [(r.kind, r.version, r.group) for r in seen.responses] == [
        ("proxy", "v1", "127.0.0.1")
    ] * 5
    assert server.connections == 1


async def test_a_proxy_client_opens_a_new_connection_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("demo.load.REQUESTS_PER_CONNECTION", 2)

    async with scripted() as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=6)

    assert len(seen.responses) == 6
    assert server.connections == 3


async def test_a_cut_before_any_byte_is_retried_once_on_a_new_connection() -> None:
    async with scripted(GOOD, CLOSE) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=3)

    assert (len(seen.responses), len(seen.cuts), len(seen.failures)) == (3, 1, 0)
    assert server.connections == 2


async def test_a_second_cut_in_a_row_is_a_failure() -> None:
    async with scripted(CLOSE, CLOSE) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=1)

    assert (len(seen.responses), len(seen.cuts), len(seen.failures)) == (0, 1, 1)


async def test_a_cut_in_the_middle_of_a_response_is_a_failure_and_not_retried() -> None:
    async with scripted(HALF) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=1)

    assert [f.reason for f in seen.failures] == [
        "the connection ended in the middle of the response"
    ]
    assert (seen.responses, seen.cuts) == ([], [])
    assert server.connections == 1


async def test_an_error_status_is_a_failure_and_says_which() -> None:
    async with scripted(UNAVAILABLE) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=2)

    assert [f.reason for f in seen.failures] == ["status 503"]
    assert len(seen.responses) == 1


async def test_v4s_own_error_is_no_failure_and_is_kept_with_its_status() -> None:
    async with scripted(OWN_ERROR) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=2)

    assert [(r.version, r.status) for r in seen.responses] == [("v4", 500), ("v1", 200)]
    assert seen.failures == []
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OWN_ERROR.replace(b"v4", b"v2"), "status 500 of v2"),
        (OWN_ERROR.replace(b"500 Internal Server Error", b"502 Bad Gateway"), "status 502 of v4"),
        (OWN_ERROR.replace(b"X-Version", b"X-Other"), "status 500"),
    ],
    ids=["of another version", "of another status", "of a proxy"],
)
async def test_every_other_error_is_a_failure(answer: bytes, reason: str) -> None:
    async with scripted(answer) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=1)

    assert (seen.responses, [f.reason for f in seen.failures]) == ([], [reason])


async def test_a_client_asks_for_every_page_and_the_flawed_one_is_a_fifth_of_them() -> None:
    async with scripted() as server:
        await seen_by(ProxyClient, plan(http=server.port), requests=100)

    assert server.pages == set(PAGES)  # one is missed with 5 x 0.8 ^ 100, about 1e-9
    assert (PAGES.count(FLAWED_PAGE), len(PAGES)) == (1, 5)


async def test_a_refused_connection_is_a_failure() -> None:
    seen = await seen_by(ProxyClient, plan(http=1), requests=1)

    assert [f.reason.startswith("connect:") for f in seen.failures] == [True]


async def test_an_answer_without_a_version_is_a_failure() -> None:
    async with scripted(GOOD.replace(b"X-Version", b"X-Other")) as server:
        seen = await seen_by(ProxyClient, plan(http=server.port), requests=1)

    assert [f.reason for f in seen.failures] == ["an answer that is not the app's"]


async def test_a_dns_client_asks_once_for_each_ttl() -> None:
    async with (
        scripted() as group,
        NameServer.serving(lambda: ("127.0.0.1", 60)) as dns,
    ):
        seen = await seen_by(DnsClient, plan(dns=dns.port, group_port=group.port), requests=5)

    assert len(seen.responses) == 5
    assert (dns.queries, group.connections) == (1, 1)


async def test_a_dns_client_never_uses_an_answer_after_its_ttl() -> None:
    """The name moves after the first answer; a second later the client must have noticed."""
    addresses = iter(["127.0.0.1"])

    async with (
        scripted() as old,
        scripted(address="127.0.0.2", port=old.port),
        NameServer.serving(lambda: (next(addresses, "127.0.0.2"), 1)) as dns,
    ):
        seen, asked_at = Batch(), now()
        client = DnsClient(seen, plan(dns=dns.port, group_port=old.port))
        while now() < asked_at + 1.5:
            await client.once(now())
        await client.close()

    assert seen.failures == []
    groups = [response.group for response in seen.responses]
    assert groups == sorted(groups)  # it moved once
    assert {*groups} == {"127.0.0.1", "127.0.0.2"}
    assert dns.queries >= 2


async def test_a_dns_client_goes_back_to_the_same_address_within_the_ttl() -> None:
    """A group that closes its connections and goes away too early must not go unnoticed."""
    addresses = iter(["127.0.0.1"])

    async with NameServer.serving(lambda: (next(addresses, "127.0.0.2"), 60)) as dns:
        async with scripted() as group:
            seen, target = Batch(), plan(dns=dns.port, group_port=group.port)
            client = DnsClient(seen, target)
            await client.once(0.0)
            group.hang_up()
        await client.once(0.0)
        await client.close()

    assert len(seen.responses) == 1
    assert [f.reason.startswith("group 127.0.0.1: ") for f in seen.failures] == [True]
    assert dns.queries == 1


async def test_a_dns_client_has_no_excuse_for_a_group_that_is_gone() -> None:
    async with (
        scripted(CLOSE) as group,
        NameServer.serving(lambda: ("127.0.0.1", 60)) as dns,
    ):
        seen = await seen_by(DnsClient, plan(dns=dns.port, group_port=group.port), requests=1)

    assert seen.cuts == []
    assert [f.reason for f in seen.failures] == [
        "group 127.0.0.1: the connection ended before any byte of the response"
    ]


async def test_a_lost_dns_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "PATIENCE_S", 0.1)
    answers = iter([None, None])

    async with (
        scripted() as group,
        NameServer.serving(lambda: next(answers, ("127.0.0.1", 60))) as dns,
    ):
        seen = await seen_by(DnsClient, plan(dns=dns.port, group_port=group.port), requests=1)

    assert (len(seen.responses), seen.failures, dns.queries) == (1, [], 3)


async def test_a_dead_name_server_is_a_failure_after_three_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolver, "PATIENCE_S", 0.05)

    async with NameServer.serving(lambda: None) as dns:
        seen = await seen_by(DnsClient, plan(dns=dns.port), requests=1)

    assert dns.queries == 3
    assert [f.reason for f in seen.failures] == ["dns: no answer in 3 tries of 0.05 s"]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0\1\x84\0\0\1\0\1",
        b"\0\1\x84\0\0\0\0\1\0\0\0\0\xff",
        b"\0\1\x84\3\0\0\0\0\0\0\0\0",
        b"\0\1\x84\0\0\0\0\0\0\0\0\0",
    ],
    ids=["empty", "short head", "name without end", "nxdomain", "no answer"],
)
def test_a_useless_packet_is_refused_with_a_reason(packet: bytes) -> None:
    with pytest.raises(resolver.NameNotResolvedError, match="dns: "):
        resolver.read_answer(packet)


def test_an_answer_is_read_past_other_records() -> None:
    """A CNAME comes first; the address is the second record."""
    query = resolver.question("api.apps.test", 7)
    cname = b"\xc0\x0c\0\5\0\1\0\0\0\5\0\2\xc0\x0c"
    address = b"\xc0\x0c\0\1\0\1\0\0\0\2\0\4" + socket.inet_aton("127.77.0.3")

    found = resolver.read_answer(
        query[:2] + b"\x84\0\0\1\0\2\0\0\0\0" + query[12:] + cname + address
    )

    assert found == resolver.Resolved("127.77.0.3", 2)
