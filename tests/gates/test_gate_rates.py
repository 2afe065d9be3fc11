"""Good releases are rolled back no more often than was promised, and bad ones in time.

Every bound here is derived: a judge that condemns an innocent with a chance of alpha at most
condemns more than `most_false` of so many with a chance of one in ten thousand (Binomial's upper
quantile). The seeds are fixed, so a test that passes goes on passing until the code changes.
"""

from math import comb
from random import Random

import pytest
from gates import rough, simulate
from gates.play import BY_ERRORS, BY_LATENCY, MOST_CHANCE, figures, most_false
from gates.rough import Times, is_condemned
from gates.simulate import Table
from gates.traffic import Scene

from trafficmgr.core import evidence
from trafficmgr.core.counted import Counted, Sides
from trafficmgr.core.gating import Compare, Gates

pytestmark = pytest.mark.long

LOOSE = 0.1
LOOSELY = Gates(compare=Compare(alpha=LOOSE, has_latency=False))
"""With an alpha this large a bug that breaks the bound shows in a few hundred runs."""


# -- the bound ------------------------------------------------------------------------------------


def test_the_acceptance_bound_is_binomials_quantile() -> None:
    def more_than(most: int, runs: int, alpha: float) -> float:
        exactly = [comb(runs, n) * alpha**n * (1 - alpha) ** (runs - n) for n in range(runs + 1)]
        return sum(exactly[most + 1 :])

    for runs, alpha in ((1, 0.01), (60, 0.01), (300, 0.1)):
        most = most_false(runs, alpha)

        assert more_than(most, runs, alpha) <= MOST_CHANCE < more_than(most - 1, runs, alpha)


def condemned(times: Times | None, runs: int) -> int:
    """Return how many innocents `compare` condemned in these times (None: in any)."""
    count = 0
    for seed in range(runs):
        rng = Random(f"rough {seed}")  # noqa: S311  chance, not cryptography
        count += is_condemned(times or rough.drawn(rng), rng, LOOSELY)
    return count


def test_no_times_are_too_rough_for_the_innocent() -> None:
    """Weights that change, spills, shared outages, late failures, workers that lag and die."""
    assert condemned(None, 250) <= most_false(250, LOOSE)


OUTAGE_BEFORE_A_FALL = Times(
    weights=((0, 50), (60, 5)),
    outage=range(40, 60),
    outage_share=0.5,
    late_s=59,
    seconds=130,
)
SPILL_IN_AN_OUTAGE = Times(
    weights=((0, 10),),
    outage=range(40, 70),
    outage_share=0.3,
    spill=range(40, 70),
    seconds=100,
)
MORE_THAN_ITS_WEIGHT = Times(
    weights=((0, 10),), really_pct=30, outage=range(40, 70), outage_share=0.3, seconds=100
)


@pytest.mark.parametrize("is_in_turn", [False, True], ids=["by chance", "in turn"])
def test_what_fails_late_is_not_held_against_a_smaller_weight(*, is_in_turn: bool) -> None:
    times = Times(**{**vars(OUTAGE_BEFORE_A_FALL), "is_in_turn": is_in_turn})

    assert condemned(times, 60) <= most_false(60, LOOSE)


def test_a_bug_that_forgets_the_weight_of_the_last_minute_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence, "_weight", lambda now, **_: now.weight_pct / 100)

    assert condemned(OUTAGE_BEFORE_A_FALL, 60) > most_false(60, LOOSE)


def test_what_stable_could_not_take_is_not_held_against_the_candidate() -> None:
    assert condemned(SPILL_IN_AN_OUTAGE, 60) <= most_false(60, LOOSE)


def test_a_bug_that_does_not_heed_spills_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "spilled", 0)

    assert condemned(SPILL_IN_AN_OUTAGE, 60) > most_false(60, LOOSE)


def test_a_share_that_is_not_the_configured_one_is_no_excuse_for_a_verdict() -> None:
    assert condemned(MORE_THAN_ITS_WEIGHT, 60) <= most_false(60, LOOSE)


def test_a_bug_that_looks_at_the_weight_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sides, "share", 0.0)

    assert condemned(MORE_THAN_ITS_WEIGHT, 60) > most_false(60, LOOSE)


# -- scenes of the page ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scene",
    [
        Scene(story="nothing", rps=50.0, weights=((0, 10),)),
        Scene(story="an outage", rps=2.0, weights=((0, 50),), outage=0.3),
        Scene(story="an outage", rps=50.0, weights=simulate.RISING, outage=0.3),
        Scene(story="a broken client", rps=2.0, weights=((0, 10),), broken_rps=0.2),
        Scene(
            story="a broken client, kept",
            rps=2.0,
            weights=((0, 10),),
            broken_rps=0.2,
            has_affinity=True,
        ),
    ],
    ids=lambda scene: scene.story,
)
def test_a_release_as_good_as_stable_is_spared(scene: Scene) -> None:
    found = figures(scene, 60, BY_ERRORS)

    assert found.count("compare") <= most_false(60)
    assert found.count("limit") <= most_false(60)


def test_a_release_as_fast_as_stable_is_spared() -> None:
    scene = Scene(story="as fast", rps=50.0, weights=((0, 10),), spread=0.5, seconds=200)

    found = figures(scene, 40, BY_LATENCY)

    assert found.count("compare") <= most_false(40)
    assert found.count("limit") <= most_false(40)


# -- the page itself ------------------------------------------------------------------------------

PAGE = simulate.PAGE.read_text("utf-8").partition(simulate.BEGIN)[2].partition(simulate.END)[0]


def rows(table: Table) -> list[list[str]]:
    """Return the cells of a table of the page, row by row."""
    index = simulate.TABLES.index(table)
    part = PAGE.split("### ")[1 + index]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("table", simulate.TABLES, ids=lambda table: table.name)
def test_the_page_has_a_row_for_each_scene(table: Table) -> None:
    """If this fails: PYTHONPATH=tests:. python -m gates.simulate --write."""
    assert [row[:2] for row in rows(table)] == [[s.story, f"{s.rps:g}"] for s in table.scenes]


@pytest.mark.parametrize("table", simulate.TABLES[: simulate.INNOCENT], ids=lambda t: t.name)
def test_no_row_of_the_page_breaks_the_bound(table: Table) -> None:
    most = most_false(table.runs)
    first = table.heads.index("compare")

    for row in rows(table):
        for cell in row[first : first + 2]:
            assert round(float(cell.removesuffix(" %")) * table.runs / 100) <= most, row


@pytest.mark.parametrize(
    ("table", "story", "rps"),
    [(0, "30% of all fail for a minute", 2.0), (2, "5%", 50.0), (3, "20%", 2.0), (4, "2", 2.0)],
)
def test_what_the_page_says_is_what_comes_out(table: int, story: str, rps: float) -> None:
    """Plays a row of each table again, to the last digit."""
    of = simulate.TABLES[table]
    scene = next(s for s in of.scenes if s.story.startswith(story) and s.rps == rps)

    found = figures(scene, of.runs, of.gates)

    assert simulate.line(of, scene, found) in PAGE.splitlines()
