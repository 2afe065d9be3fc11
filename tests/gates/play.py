"""One rollout after another in a scene, judged by the real gates and by what others do instead."""

from dataclasses import dataclass
from math import comb
from random import Random

from gates.rivals import FixedThreshold
from gates.traffic import Scene, counted

from trafficmgr.core import evidence as evidence_of
from trafficmgr.core import gates as gates_of
from trafficmgr.core.counted import EMPTY
from trafficmgr.core.gating import Compare, Gates, VerdictKind

ALPHA = 0.01
BY_ERRORS = Gates(max_error_rate=0.01, compare=Compare(alpha=ALPHA))
BY_LATENCY = Gates(max_p95_s=0.12, compare=Compare(alpha=ALPHA))
JUDGES = ("compare", "limit", "fixed 1", "fixed 5")
MOST_CHANCE = 0.0001


@dataclass(frozen=True)
class Rollout:
    """What came of one: by judge, the second in which it condemned the candidate (None: never).

    `passed_at` is when `compare` first said that it had seen enough.
    """

    condemned_at: dict[str, int | None]
    passed_at: int | None

    @property
    def is_let_pass(self) -> bool:
        """Whether `compare` passed it before it condemned it, if it ever did."""
        passed_at, condemned_at = self.passed_at, self.condemned_at["compare"]
        return passed_at is not None and (condemned_at is None or passed_at < condemned_at)


def play(scene: Scene, seed: int, gates: Gates) -> Rollout:
    """Run one rollout to its end, or until every judge has condemned the candidate.

    The verdicts are asked for each second, as the controller does it.
    """
    worker = "w"
    fixed = (FixedThreshold(1), FixedThreshold(5))
    seen = evidence_of.begun(0.0, 0, {worker: EMPTY})
    said_at: dict[tuple[str, VerdictKind], int] = {}
    rng = Random(f"{scene} {seed}")  # noqa: S311  chance, not cryptography
    for second, pair in enumerate(counted(scene, rng), 1):
        weight = scene.weight_pct(second - 1)
        seen = evidence_of.observed(
            seen,
            {worker: pair},
            at=float(second),
            stage=scene.stage(second - 1),
            weight_pct=weight,
            gates=gates,
            has_affinity=scene.has_affinity,
        )
        said = gates_of.verdicts(
            gates, seen, at=float(second), weight_pct=weight, has_affinity=scene.has_affinity
        )
        for verdict in said:
            said_at.setdefault((verdict.gate, verdict.kind), second)
        for threshold in fixed:
            threshold.look(second, pair.candidate)
        failed = [said_at.get((verdict.gate, VerdictKind.failed)) for verdict in said]
        others = [threshold.rolled_back_at for threshold in fixed]
        if all(failed) and all(others):
            break
    limit, compare = failed
    return Rollout(
        condemned_at=dict(zip(JUDGES, (compare, limit, *others), strict=True)),
        passed_at=said_at.get(("compare", VerdictKind.passed)),
    )


@dataclass(frozen=True)
class Figures:
    """What came of many rollouts in a scene: when they were condemned, by judge, and passed.

    `let_pass` were passed by `compare` before they were condemned, or never were; of the
    `undecided` it said to the end that it had seen too little.
    """

    runs: int
    condemned_at: dict[str, tuple[int, ...]]
    passed_at: tuple[int, ...]
    let_pass: int
    undecided: int

    def count(self, judge: str) -> int:
        """Return how many rollouts this judge ended."""
        return len(self.condemned_at[judge])


def figures(scene: Scene, runs: int, gates: Gates = BY_ERRORS) -> Figures:
    """Run as many rollouts of a scene; the seed of each is its number."""
    rollouts = [play(scene, seed, gates) for seed in range(runs)]
    return Figures(
        runs=runs,
        condemned_at={
            judge: tuple(at for one in rollouts if (at := one.condemned_at[judge]))
            for judge in JUDGES
        },
        passed_at=tuple(one.passed_at for one in rollouts if one.passed_at),
        let_pass=sum(one.is_let_pass for one in rollouts),
        undecided=sum(not (one.passed_at or one.condemned_at["compare"]) for one in rollouts),
    )


def most_false(runs: int, alpha: float = ALPHA, chance: float = MOST_CHANCE) -> int:
    """Return how many of these runs may be condemned if each is with alpha at most.

    It is the least number that more are condemned than with no more than this chance: Binomial's
    upper quantile. With it a table of a hundred rows is wrong about one of them once in a hundred.
    """
    above = 1.0
    for most in range(runs):
        above -= comb(runs, most) * alpha**most * (1 - alpha) ** (runs - most)
        if above <= chance:
            return most
    return runs
