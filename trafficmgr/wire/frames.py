"""The control link between controller and workers: length-prefixed msgpack frames (DESIGN 3).

A frame is four bytes of length (big endian, without themselves) and one msgpack value. Whoever
reads them feeds a `Decoder` with what arrived and gets whole frames back.

Worker to controller: `Hello` first, then `Applied`, `Counts`, and `Bye` before a clean end.
Controller to worker: `TableSent`, `ZonesSent`. All of them may be repeated without harm.
"""

import struct

import msgspec

from trafficmgr.core.evidence import BOUNDS_S
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Table, Zones

PROTOCOL = 3
"""Version of this page. A worker of another version is replaced, never guessed at."""

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""A table of 10,000 targets is below 1 MiB; more than this is a desynchronised stream."""

DURATION_BOUNDS_S = BOUNDS_S
"""Upper bounds of the buckets that answers are counted in, by how long they took; one more bucket
takes what is above."""

_LENGTH = struct.Struct(">I")


class ProtocolError(ValueError):
    """The peer sent something that this page does not allow."""


class Hello(Noun, tag="hello"):
    """The first frame of a worker: who it is and what it serves now."""

    protocol: int
    slot: int
    start_id: str
    pid: int
    generations: dict[str, int] = {}


class TableSent(Noun, tag="table"):
    """Serve this table now, unless a newer generation is served already."""

    table: Table


class ZonesSent(Noun, tag="zones"):
    """These are the zones and advertised addresses now."""

    zones: Zones


class Applied(Noun, tag="applied"):
    """What a worker knows of an endpoint after it applied a table.

    Sent at once after a table was applied, after a hello for each endpoint, and again whenever
    one of the lists changed (at most once a second).

    Attributes:
        answered: For each group withdrawn since this worker started: when it last answered a DNS
            query with the group's address (CLOCK_BOOTTIME); groups never answered are absent.
        http_busy: Withdrawn groups to which requests are still under way.
        tunnel_busy: Withdrawn groups to which tunnels are still open.
    """

    endpoint: str
    generation: int
    answered: dict[str, float] = {}
    http_busy: tuple[str, ...] = ()
    tunnel_busy: tuple[str, ...] = ()


class ShareCounts(Noun):
    """Cumulative counts of one revision of one endpoint, since the worker started.

    Of the `requests`, `in_flight` are under way, and `moved` went on to another revision, or to
    wait again, because no group of this one took the connection; the rest is finished, which is
    counted in the same step as how it ended. `errors_5xx` counts answers of the application,
    `failures` what the proxy itself answered or broke off, by reason ("connect", "timeout",
    "upstream_closed", ...). No request is in both, or twice: an answer of 5xx that breaks off is an
    answer of 5xx. A client that goes away, or sends a request that is refused, is finished without
    failure.

    `dns` counts answers that carried an address of the revision, `spilled` clients of either kind
    that were drawn for it and served by another share. `durations` holds how many answers began
    within each of DURATION_BOUNDS_S, from the choice of a group on (empty: none yet),
    `durations_s` their sum. `preview` counts the clients of either kind that came by
    `preview.<host>`; they are in none of the others.

    `ejected` counts how often a group was passed over for its failures, `repeated` requests that
    were sent to a second group because the first broke off. `waiting` are those that wait now, for
    room or because the endpoint is held; they are counted for revision "".

    With affinity, `clients` and `failing` hold finished and failed requests by client bucket, for
    the revisions that the last few tables had (routing.BUCKETS).
    """

    requests: int = 0
    errors_5xx: int = 0
    failures: dict[str, int] = {}
    dns: int = 0
    spilled: int = 0
    in_flight: int = 0
    moved: int = 0
    durations: tuple[int, ...] = ()
    durations_s: float = 0.0
    preview: int = 0
    ejected: int = 0
    repeated: int = 0
    waiting: int = 0
    clients: dict[int, int] = {}
    failing: dict[int, int] = {}


class Counts(Noun, tag="counts"):
    """Cumulative counts of a worker: endpoint -> revision -> counts; revision "" is no target.

    An endpoint that is absent has the counts of the last frame of this connection that has it: of a
    thousand endpoints most rest at any time.
    """

    start_id: str
    at: float
    endpoints: dict[str, dict[str, ShareCounts]] = {}


class Bye(Noun, tag="bye"):
    """The last frame of a worker that ends in order; it answers nothing after it.

    Attributes:
        answered: Endpoint -> group -> when it last answered with the group's address, for all
            groups of its tables, withdrawn or not.
    """

    start_id: str
    answered: dict[str, dict[str, float]] = {}


FromWorker = Hello | Applied | Counts | Bye
FromController = TableSent | ZonesSent
Frame = FromWorker | FromController

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Return the frame as it goes over the link."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns a byte stream back into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are whole now.

        Raises:
            ProtocolError: The stream is not what this page describes; close the connection.
        """
        self._buffer += data
        frames: list[Frame] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(self._one(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return frames

    @staticmethod
    def _one(body: bytes) -> Frame:
        try:
            return _decoder.decode(body)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a frame that is none of ours: {error}") from error
