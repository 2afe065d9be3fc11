"""What the clients saw: every response, every failure, every retry, each with its time.

The load process writes a `Batch` a line; the demo reads them into one `Ledger` and asks it. Times
are CLOCK_BOOTTIME, the clock that trafficmgr's own marks are made with, so that the two can be laid
side by side.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

PROXY, DNS = "proxy", "dns"
"""The two kinds of client."""

OK = 200


def now() -> float:
    """Return seconds on CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Response(NamedTuple):
    """An answer of the app: when it was whole, and how long after it was due (seconds).

    Its status is OK, or that of an error which the app makes on purpose.
    """

    at: float
    kind: str
    version: str
    group: str
    latency_s: float
    status: int = OK


class Trouble(NamedTuple):
    """A failed request, or one that was sent again on a new connection; `reason` says why."""

    at: float
    kind: str
    reason: str


class NameAnswer(NamedTuple):
    """What DNS said to a client: it may go there for so many seconds from then on."""

    at: float
    address: str
    ttl_s: int


class Met(NamedTuple):
    """What clients got of a version; `exposed_s` lies between its first and its last answer."""

    requests: int
    errors: int
    exposed_s: float


class Batch(msgspec.Struct, omit_defaults=True):
    """What the load process saw since its last batch. `is_last` says that it is done."""

    responses: list[Response] = []
    failures: list[Trouble] = []
    cuts: list[Trouble] = []
    names: list[NameAnswer] = []
    is_last: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.responses or self.failures or self.cuts or self.names or self.is_last)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Batch)


def to_line(batch: Batch) -> bytes:
    """Return the batch as the load process writes it."""
    return _encoder.encode(batch) + b"\n"


def from_line(line: bytes) -> Batch:
    """Return the batch in a line; raises msgspec.DecodeError on anything else."""
    return _decoder.decode(line)


class Ledger:
    """All batches of a run, and the questions that the demo has about them.

    `errors` counts the answers that were errors which the app makes on purpose.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.responses: list[Response] = []
        self.failures: list[Trouble] = []
        self.cuts: list[Trouble] = []
        self.names: list[NameAnswer] = []
        self.is_complete = False

    def add(self, batch: Batch) -> None:
        """Take in what one more line told."""
        self.errors += sum(response.status != OK for response in batch.responses)
        self.responses += batch.responses
        self.failures += batch.failures
        self.cuts += batch.cuts
        self.names += batch.names
        self.is_complete |= batch.is_last

    @property
    def requests(self) -> int:
        """How many requests came to an end, good or bad."""
        return len(self.responses) + len(self.failures)

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last request that came to an end."""
        times = [response.at for response in self.responses]
        times += [failure.at for failure in self.failures]
        return max(times) - min(times) if times else 0.0

    def clients(self) -> dict[str, int]:
        """Return how many answers each kind of client got."""
        counts = Counter(response.kind for response in self.responses)
        return {PROXY: counts[PROXY], DNS: counts[DNS]}

    def versions(self, *, kind: str, since: float, until: float) -> Counter[str]:
        """Return how many answers of each version the clients of a kind got within a window."""
        return Counter(
            response.version
            for response in self.responses
            if response.kind == kind and since <= response.at <= until
        )

    def versions_lately(self, *, kind: str, since: float) -> Counter[str]:
        """Return the same up to now, at the cost of the window only; for the live view."""
        return Counter(r.version for r in self._lately(since) if r.kind == kind)

    def met(self, version: str, *, kind: str) -> Met:
        """Return what the clients of a kind got of a version, in all."""
        answers = [r for r in self.responses if (r.version, r.kind) == (version, kind)]
        times = [answer.at for answer in answers]
        return Met(
            requests=len(answers),
            errors=sum(answer.status != OK for answer in answers),
            exposed_s=round(max(times) - min(times), 3) if times else 0.0,
        )

    def last_served(self) -> dict[tuple[str, str], float]:
        """Return when each group, by address and version, gave its last answer."""
        last: dict[tuple[str, str], float] = {}
        for response in self.responses:
            key = response.group, response.version
            last[key] = max(response.at, last.get(key, 0.0))
        return last

    def failed_within(self, *, kind: str, since: float, until: float) -> int:
        """Return how many requests of a kind of client failed within a window."""
        return sum(f.kind == kind and since <= f.at <= until for f in self.failures)

    def p99_ms(self) -> float:
        """Return the 99th percentile of all answers, in milliseconds (nearest rank)."""
        if not self.responses:
            return 0.0
        latencies = sorted(response.latency_s for response in self.responses)
        return round(latencies[math.ceil(len(latencies) * 0.99) - 1] * 1000, 1)

    def _lately(self, since: float) -> Iterator[Response]:
        """Yield the responses since a time, newest first; batches come nearly in order."""
        slack_s = 1.0
        for response in reversed(self.responses):
            if response.at < since - slack_s:
                return
            if response.at >= since:
                yield response
