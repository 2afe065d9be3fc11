"""TLS in a worker: certificates by name, new files, what is refused, redirects to https."""

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.front_support import (
    Issued,
    listen_tls,
    publish,
    says,
    serial_of,
    take_front,
    tls_client,
    unverified,
)
from support.proxy_support import Client, Rig, read_head, read_message, until, with_proxy

from trafficmgr.core.traffic import Certificate, Front, HttpPolicy

HOSTS = ("shop.test", "a.apps.test", "other.test")


async def shop(rig: Rig, http: HttpPolicy | None = None) -> None:
    publish(rig, "shop", HOSTS, [await rig.app("shop-1", says("shop"))], http=http)


async def shown(rig: Rig, port: int, name: str | None) -> int:
    client = await tls_client(rig, port, name)
    serial = serial_of(client)
    await client.close()
    return serial


@with_proxy
async def test_clients_that_verify_are_served_over_http_1_1(rig: Rig, tmp_path: Path) -> None:
    app = await rig.app("shop-1", says("shop"))
    publish(rig, "shop", ("shop.test",), [app])
    issued = Issued(tmp_path, "shop.test")
    port = await listen_tls(rig, issued.files)
    context = ssl.create_default_context(cadata=issued.pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])

    client = await tls_client(rig, port, context=context)
    for _ in range(3):
        assert (await client.get()).body == b"shop"

    connection = client.writer.get_extra_info("ssl_object")
    assert connection.version() == "TLSv1.3"
    assert connection.selected_alpn_protocol() == "http/1.1"
    assert app.requests[0].fields["x-forwarded-proto"] == "https"
    assert app.requests[0].fields["forwarded"].endswith("proto=https")


@with_proxy
async def test_the_name_that_a_client_asks_for_picks_the_certificate(
    rig: Rig, tmp_path: Path
) -> None:
    await shop(rig)
    first = Issued(tmp_path, "first.test")
    exact, wild = Issued(tmp_path, "shop.test", "b.apps.test"), Issued(tmp_path, "*.apps.test")
    port = await listen_tls(rig, first.files, wild.files, exact.files)

    assert await shown(rig, port, "shop.test") == exact.serial
    assert await shown(rig, port, "SHOP.test") == exact.serial
    assert await shown(rig, port, "b.apps.test") == exact.serial
    assert await shown(rig, port, "a.apps.test") == wild.serial
    assert await shown(rig, port, "a.b.apps.test") == first.serial
    assert await shown(rig, port, "unknown.test") == first.serial
    assert await shown(rig, port, None) == first.serial


@with_proxy
async def test_a_host_that_the_certificate_is_not_for_is_421(rig: Rig, tmp_path: Path) -> None:
    await shop(rig)
    port = await listen_tls(rig, Issued(tmp_path, "shop.test", "*.apps.test").files)
    client = await tls_client(rig, port, "shop.test")

    assert (await client.get(host="shop.test")).status == 200
    assert (await client.get(host="a.apps.test:8443")).status == 200
    answer = await client.get(host="other.test")
    assert answer.status == 421
    assert answer.body == b"421 this connection's certificate is not for the host other.test\n"
    assert (await client.get(host="shop.test")).status == 200
    nameless = await tls_client(rig, port, None)
    assert (await nameless.get(host="other.test")).status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@with_proxy
async def test_tls_before_1_2_is_refused(rig: Rig, tmp_path: Path) -> None:
    await shop(rig)
    port = await listen_tls(rig, Issued(tmp_path, "shop.test").files)
    old, fair = unverified(), unverified()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    fair.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await tls_client(rig, port, context=old)

    assert (await (await tls_client(rig, port, context=fair)).get()).status == 200


@with_proxy
async def test_new_files_are_for_new_connections_and_drop_none(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await shop(rig)
    issued = Issued(tmp_path, "shop.test")
    old = issued.serial
    port = await listen_tls(rig, Issued(tmp_path, "first.test").files, issued.files)
    client = await tls_client(rig, port)
    await client.get()

    issued.issue("shop.test", "other.test")
    rig.server.sweep(rig.server.now())

    assert (await client.get()).status == 200
    assert await shown(rig, port, "shop.test") == issued.serial != old
    assert await shown(rig, port, "other.test") == issued.serial
    told = capsys.readouterr().err
    assert told.count("certificate_loaded") == 3
    assert "names=other.test,shop.test" in told


@with_proxy
async def test_broken_files_leave_the_old_certificate_in_use_and_are_told_once(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await shop(rig)
    issued = Issued(tmp_path, "shop.test")
    other = Issued(tmp_path, "other.test")
    port = await listen_tls(rig, issued.files)
    key = Path(issued.files.key)
    for broken in (b"garbage", Path(other.files.key).read_bytes(), None):
        key.unlink()
        if broken is not None:
            key.write_bytes(broken)
        capsys.readouterr()

        for _ in range(3):
            rig.server.sweep(rig.server.now())

        assert await shown(rig, port, "shop.test") == issued.serial
        assert capsys.readouterr().err.count("certificate_refused") == 1
        if broken is None:
            key.write_bytes(b"")

    issued.issue("shop.test")
    rig.server.sweep(rig.server.now())
    assert await shown(rig, port, "shop.test") == issued.serial


@with_proxy
async def test_without_a_certificate_there_is_no_handshake_and_with_one_there_is(
    rig: Rig, tmp_path: Path
) -> None:
    await shop(rig)
    missing = str(tmp_path / "shop.test.crt"), str(tmp_path / "shop.test.key")
    port = await listen_tls(rig, Certificate(certificate=missing[0], key=missing[1]))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await tls_client(rig, port)

    issued = Issued(tmp_path, "shop.test")
    rig.server.sweep(rig.server.now())

    assert await shown(rig, port, "shop.test") == issued.serial


@with_proxy
async def test_a_key_with_a_password_is_refused_and_not_asked_for(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = Issued(tmp_path, "shop.test")
    key = serialization.load_pem_private_key(Path(issued.files.key).read_bytes(), None)
    Path(issued.files.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    take_front(rig, Front(certificates=(issued.files,)))

    assert "certificate_refused" in capsys.readouterr().err


@with_proxy
async def test_those_who_do_not_speak_tls_and_those_who_leave_harm_nobody(
    rig: Rig, tmp_path: Path
) -> None:
    await shop(rig)
    port = await listen_tls(rig, Issued(tmp_path, "shop.test").files)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
        stranger = Client(*await asyncio.open_connection("127.0.0.1", port))
        rig.clients.append(stranger)
        stranger.send(garbage)
        stranger.writer.write_eof()
        with suppress(ConnectionError):
            await stranger.rest()
    half = socket.create_connection(("127.0.0.1", port))
    half.close()

    assert (await (await tls_client(rig, port)).get()).status == 200


@with_proxy
async def test_large_bodies_go_both_ways(rig: Rig, tmp_path: Path) -> None:
    size = 3 * 1024 * 1024
    body = bytes(range(256)) * (size // 256)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = await read_message(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(message.body))
        writer.write(message.body)

    publish(rig, "shop", ("shop.test",), [await rig.app("shop-1", script=echo)])
    client = await tls_client(rig, await listen_tls(rig, Issued(tmp_path, "shop.test").files))

    answer = await client.ask(
        b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
    )

    assert answer.body == body


@with_proxy
async def test_a_last_answer_is_whole_although_the_client_sends_on(
    rig: Rig, tmp_path: Path
) -> None:
    await shop(rig)
    client = await tls_client(rig, await listen_tls(rig, Issued(tmp_path, "shop.test").files))

    client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n" + b"x" * 100_000)

    answer = await client.answer()
    assert (answer.body, answer.fields["connection"]) == (b"shop", "close")
    assert await client.rest() == b""
    await until(lambda: not rig.server.connections)


@with_proxy
async def test_websockets_go_over_tls_and_end_as_others_do(rig: Rig, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while data := await reader.read(65536):
            writer.write(data)

    publish(rig, "shop", ("shop.test",), [await rig.app("shop-1", script=echo)])
    client = await tls_client(rig, await listen_tls(rig, Issued(tmp_path, "shop.test").files))
    client.send(
        b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert (await read_head(client.reader)).status == 101
    client.send(b"\x82\x03abc")
    assert await client.reader.readexactly(5) == b"\x82\x03abc"

    client.writer.close()

    await rig.settled()
    assert not rig.server.tunnels


@with_proxy
async def test_https_clients_beyond_the_limit_are_told(rig: Rig, tmp_path: Path) -> None:
    await shop(rig)
    port = await listen_tls(rig, Issued(tmp_path, "shop.test").files)
    take_front(rig, rig.server.front.but(max_connections=1))
    first = await tls_client(rig, port)
    await first.get()

    assert (await (await tls_client(rig, port)).answer()).status == 503
    assert (await first.get()).status == 200


# -- redirects ------------------------------------------------------------------------------------


@with_proxy
async def test_an_endpoint_that_wants_https_sends_plain_clients_there(
    rig: Rig, tmp_path: Path
) -> None:
    await shop(rig, HttpPolicy(redirects_to_https=True))
    client = await rig.client()

    answer = await client.get("/a?b=c", "SHOP.test.:80")
    assert answer.status == 308
    assert answer.fields["location"] == "https://shop.test/a?b=c"

    port = await listen_tls(rig, Issued(tmp_path, "shop.test").files)
    answer = await client.ask(b"POST /a HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nab")
    assert answer.fields["location"] == f"https://shop.test:{port}/a"
    head = await client.ask(b"HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n", has_body=False)
    assert head.fields["location"] == f"https://shop.test:{port}/"
    answer = await client.ask(b"OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    assert answer.fields["location"] == f"https://shop.test:{port}/"
    assert (await (await tls_client(rig, port)).get()).status == 200


@with_proxy
async def test_who_came_to_a_trusted_proxy_by_https_is_not_sent_round_in_circles(rig: Rig) -> None:
    await shop(rig, HttpPolicy(redirects_to_https=True))
    request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-Proto: https\r\n\r\n"
    assert (await (await rig.client()).ask(request)).status == 308

    take_front(rig, Front(trusted_proxies=("127.0.0.1",)))

    assert (await (await rig.client()).ask(request)).status == 200
