"""A good release in rough times, request by request: whatever may happen to one that is innocent.

Unlike traffic.py this knows no shortcut: three workers take a new weight up at their own time and
report at their own time, one may die and lose what it did not report; requests are given out by
chance or in turn; they spill when one side can't be reached; a dependency that both share goes
down, and what fails then may fail a minute after it was sent.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random

from trafficmgr.core import evidence as evidence_of
from trafficmgr.core import gates as gates_of
from trafficmgr.core.counted import EMPTY, Counted, Pair
from trafficmgr.core.gating import Gates, VerdictKind

WORKERS = 3
ERRORS = 0.005
Weights = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Times:
    """What happens to a release.

    Attributes:
        weights: (second, weight in per cent), the first at 0.
        is_in_turn: Requests are given out in turn, and not by chance.
        really_pct: What workers give the candidate, whatever is configured (None: what is).
        outage: When `outage_share` of all requests fail, up to `late_s` after they were sent.
        spill: When stable takes nobody, and the candidate serves all.
        dying: When the first worker dies.
    """

    weights: Weights
    is_in_turn: bool = False
    really_pct: int | None = None
    outage: range = range(0)
    outage_share: float = 0.0
    late_s: int = 0
    spill: range = range(0)
    dying: int = -1
    rps: int = 20
    seconds: int = 240

    def weight_pct(self, second: int) -> int:
        """Return the weight that is configured."""
        return max(step for step in self.weights if step[0] <= second)[1]


def drawn(rng: Random) -> Times:
    """Return some times: each trouble comes in about half of them."""
    changes = sorted(rng.sample(range(10, 240), rng.randrange(5)))
    first = rng.choice((5, 10, 50))
    begins, spills = rng.randrange(200), rng.randrange(200)
    return Times(
        weights=((0, first), *((at, rng.choice((5, 10, 25, 50, 80))) for at in changes)),
        is_in_turn=rng.random() < 0.5,
        outage=range(begins, begins + rng.choice((0, 5, 20, 60))),
        outage_share=rng.choice((0.03, 0.3, 1.0)),
        late_s=rng.choice((0, 10, 59)),
        spill=range(spills, spills + rng.choice((0, 0, 10))),
        dying=rng.choice((-1, 100)),
    )


@dataclass
class _Worker:
    """What one worker has counted, and where it is in giving out requests in turn."""

    name: str
    lag_s: int
    turn: float
    spilled: int = 0
    counts: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])

    def told(self) -> Pair:
        (mine, failed), (others, stable_failed) = self.counts
        return Pair(
            candidate=Counted(finished=mine, failed=failed),
            stable=Counted(finished=others, failed=stable_failed, spilled=self.spilled),
        )


def is_condemned(times: Times, rng: Random, gates: Gates) -> bool:
    """Play it, and return whether `compare` ever failed."""
    workers = [_Worker(f"{n}", rng.randrange(3), rng.random()) for n in range(WORKERS)]
    seen = evidence_of.begun(0.0, 0, {worker.name: EMPTY for worker in workers})
    ending: dict[int, list[tuple[_Worker, int, bool]]] = defaultdict(list)
    heard: dict[str, Pair] = {}
    for second in range(times.seconds):
        if second == times.dying:
            workers[0] = _Worker("0 again", 0, rng.random())
        for _ in range(times.rps):
            _send(times, second, rng.choice(workers), ending, rng)
        for worker, side, is_failed in ending.pop(second, ()):
            worker.counts[side][0] += 1
            worker.counts[side][1] += is_failed
        for worker in workers:
            if rng.random() < 0.9:  # the others report a second later
                heard[worker.name] = worker.told()
        weight = times.weight_pct(second)
        seen = evidence_of.observed(
            seen,
            heard,
            at=float(second + 1),
            stage=0,
            weight_pct=weight,
            gates=gates,
            has_affinity=False,
        )
        *_, said = gates_of.verdicts(
            gates, seen, at=float(second + 1), weight_pct=weight, has_affinity=False
        )
        if said.kind is VerdictKind.failed:
            return True
    return False


def _send(
    times: Times,
    second: int,
    worker: _Worker,
    ending: dict[int, list[tuple[_Worker, int, bool]]],
    rng: Random,
) -> None:
    """Give a request to a side, and note when it will end and how."""
    told = times.weight_pct(max(0, second - worker.lag_s))
    weight = (told if times.really_pct is None else times.really_pct) / 100
    if times.is_in_turn:
        worker.turn += weight
        side = int(worker.turn < 1)
        worker.turn -= not side
    else:
        side = int(rng.random() >= weight)
    if side and second in times.spill:
        worker.spilled += 1
        side = 0
    is_out = second in times.outage and rng.random() < times.outage_share
    is_failed = is_out or rng.random() < ERRORS
    ends = second + (rng.randint(0, times.late_s) if is_out else 0)
    ending[ends].append((worker, side, is_failed))
