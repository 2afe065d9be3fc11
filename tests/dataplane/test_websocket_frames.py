"""Where WebSocket frames end, however the stream is cut, and the close frames that we make."""

from hypothesis import given
from hypothesis import strategies as st

from trafficmgr.dataplane.websocket import Frames, close_frame

OPCODES = st.sampled_from([0x0, 0x1, 0x2, 0x9, 0xA])


def frame(opcode: int, content: bytes, *, is_masked: bool = False, is_final: bool = True) -> bytes:
    """Return a frame as RFC 6455 section 5.2 has it."""
    size = len(content)
    masked = 0x80 if is_masked else 0
    head = bytes([(0x80 if is_final else 0) | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + size.to_bytes(8, "big")
    return head + (b"key!" if is_masked else b"") + content


FRAMES = st.builds(
    frame,
    OPCODES,
    st.one_of(st.binary(max_size=130), st.sampled_from([125, 126, 127, 65535, 65536]).map(bytes)),
    is_masked=st.booleans(),
    is_final=st.booleans(),
)


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 70_000), max_size=30))
def test_a_boundary_is_where_a_frame_ends_however_the_stream_is_cut(
    sent: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(sent)
    boundaries = {sum(map(len, sent[:count])) for count in range(len(sent) + 1)}
    frames, at = Frames(), 0

    for size in [*cuts, len(stream)]:
        taken = frames.feed(stream[at : at + size])
        assert taken == len(stream[at : at + size])
        at += taken
        assert frames.is_between == (at in boundaries)
    assert not frames.is_closed


@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(0, 200_000))
def test_what_completes_a_frame_is_taken_and_no_byte_more(sent: list[bytes], cut: int) -> None:
    stream = b"".join(sent)
    cut = min(cut, len(stream))
    frames = Frames()
    frames.feed(stream[:cut])

    taken = frames.feed(stream[cut:], is_last=True)

    boundaries = [sum(map(len, sent[:count])) for count in range(len(sent) + 1)]
    assert cut + taken == min(boundary for boundary in boundaries if boundary >= cut)
    assert frames.is_between


def test_a_close_frame_is_noticed_as_soon_as_it_can_be() -> None:
    closing = close_frame(1000, is_masked=True)
    seen = []
    frames = Frames()

    for at in range(len(closing)):
        frames.feed(closing[at : at + 1])
        seen.append((frames.is_closed, frames.is_between))

    assert seen == [(False, False), *[(True, False)] * 6, (True, True)]


def test_close_frames_are_as_the_rfc_has_them() -> None:
    assert close_frame(1001, is_masked=False) == b"\x88\x02\x03\xe9"

    first, second = close_frame(1001, is_masked=True), close_frame(1001, is_masked=True)

    assert first[:2] == second[:2] == b"\x88\x82"
    key, content = first[2:6], first[6:]
    assert bytes(a ^ b for a, b in zip(content, key, strict=False)) == b"\x03\xe9"
