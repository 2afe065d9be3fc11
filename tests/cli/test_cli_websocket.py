"""The client's side of a WebSocket: frames as RFC 6455 has them, however the bytes come."""

import struct

import pytest

from trafficmgr.cli import websocket
from trafficmgr.cli.websocket import BINARY, CLOSE, PING, TEXT, Reader, WebSocketError, frame


def served(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """Return a frame as a server sends it, unmasked."""
    first = opcode | (0x80 if is_final else 0)
    if len(payload) < 126:
        return bytes([first, len(payload)]) + payload
    if len(payload) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


def test_the_proof_is_that_of_the_rfc() -> None:
    """Section 1.3 has this very example."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="

    assert websocket.is_accepted(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert not websocket.is_accepted(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")
    assert not websocket.is_accepted(key, None)


@pytest.mark.parametrize("length", [0, 1, 3, 125, 126, 65535, 65536, 100_001])
def test_a_frame_is_masked_and_says_its_length(length: int) -> None:
    payload = bytes(range(256)) * (length // 256 + 1)
    payload = payload[:length]

    data = frame(BINARY, payload)

    assert data[0] == 0x82
    assert data[1] & 0x80
    head = 2 + {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
    said = data[1] & 0x7F if head == 2 else int.from_bytes(data[2:head])
    assert said == length
    key, masked = data[head : head + 4], data[head + 4 :]
    assert bytes(byte ^ key[i % 4] for i, byte in enumerate(masked)) == payload


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_messages_are_found_however_the_bytes_come(length: int) -> None:
    data = served(BINARY, b"x" * length) + served(TEXT, b"{}")
    reader = Reader()

    messages = [message for byte in data for message in reader.feed(bytes([byte]))]

    assert messages == [(BINARY, b"x" * length), (TEXT, b"{}")]
    assert list(Reader().feed(data)) == messages


def test_a_message_in_pieces_is_put_together_and_a_ping_may_come_between() -> None:
    data = (
        served(BINARY, b"one ", is_final=False)
        + served(PING, b"?")
        + served(0, b"two ", is_final=False)
        + served(0, b"three")
        + served(CLOSE, b"\x03\xe8")
    )

    assert list(Reader().feed(data)) == [
        (PING, b"?"),
        (BINARY, b"one two three"),
        (CLOSE, b"\x03\xe8"),
    ]


@pytest.mark.parametrize(
    "data",
    [b"\x82\x85abcdhello", struct.pack("!BBQ", 0x82, 127, 1 << 40), b"\x82\x7f" + b"\xff" * 8],
)
def test_what_is_no_websocket_is_refused(data: bytes) -> None:
    with pytest.raises(WebSocketError):
        list(Reader().feed(data))


def test_a_message_that_never_ends_is_refused() -> None:
    pieces = served(0, bytes(1 << 20), is_final=False) * 20

    with pytest.raises(WebSocketError, match="too long"):
        list(Reader().feed(pieces))
