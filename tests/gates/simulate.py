"""The measured tables of docs/gates.md: what is rolled back falsely, and how soon what is bad is.

    PYTHONPATH=tests:. python -m gates.simulate            print them
    PYTHONPATH=tests:. python -m gates.simulate --write    put them into docs/gates.md

Everything is drawn from seeds, so the same code makes the same tables on any machine. It takes a
few minutes; tests/gates/test_gate_rates.py plays a part of it and holds the page against that.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from gates.play import ALPHA, BY_ERRORS, BY_LATENCY, JUDGES, Figures, figures
from gates.traffic import Scene

from trafficmgr.core.gating import Gates

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"

RATES = (2.0, 50.0, 500.0)
FEW_RATES = RATES[:2]
WEIGHTS = (10, 50)
RISING = ((0, 5), (120, 10), (200, 25), (220, 50))
HOUR_S = 3600

Cells = Callable[[Scene, Figures], tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """Scenes of one kind, how often each is played, by which gates, and what is shown of it."""

    name: str
    scenes: tuple[Scene, ...]
    runs: int
    gates: Gates
    heads: tuple[str, ...]
    cells: Cells


# -- scenes ---------------------------------------------------------------------------------------


def grid(story: str, rates: tuple[float, ...], **figures_: Any) -> Iterator[Scene]:
    """Yield the same scene at each rate and weight."""
    for rps in rates:
        for weight in WEIGHTS:
            yield Scene(story=story, rps=rps, weights=((0, weight),), **figures_)


def innocent(rates: tuple[float, ...], *, has_affinity: bool) -> Iterator[Scene]:
    """Yield scenes in which the candidate is as good as stable."""
    yield from grid("nothing", rates, has_affinity=has_affinity)
    for outage in (0.03, 0.3):
        story = f"{outage:.0%} of all fail for a minute"
        yield from grid(story, rates, outage=outage, has_affinity=has_affinity)
    story = "30% for a minute, weight rises"
    yield Scene(story=story, rps=50.0, weights=RISING, outage=0.3, has_affinity=has_affinity)
    story = "one client fails all the time"
    yield from grid(story, FEW_RATES, broken_rps=0.2, has_affinity=has_affinity)


def guilty(rates: tuple[float, ...], *, has_affinity: bool) -> Iterator[Scene]:
    """Yield scenes in which more of the candidate's requests fail than the 0.5 % of stable's."""
    for errors in (0.01, 0.02, 0.05, 0.2):
        yield from grid(f"{errors:.0%}", rates, errors=errors, has_affinity=has_affinity)


LATE = Scene(
    story="5%, after an hour without",
    rps=50.0,
    weights=((0, 10),),
    errors=0.05,
    bad_from_s=HOUR_S,
    seconds=HOUR_S + 600,
)


def slow() -> Iterator[Scene]:
    """Yield scenes in which the candidate's answers take longer, or don't."""
    for slower in (1.0, 1.3, 2.0, 3.0):
        yield from grid(f"{slower:g} times as long", FEW_RATES, slower=slower, spread=0.5)


# -- cells ----------------------------------------------------------------------------------------


def shares(_: Scene, found: Figures) -> tuple[str, ...]:
    """Return who was rolled back by whom, and how many passed how soon."""
    rolled_back = tuple(_pct(found.count(judge), found.runs) for judge in JUDGES)
    return (*rolled_back, _when(found.passed_at, found.runs))


def delays(scene: Scene, found: Figures) -> tuple[str, ...]:
    """Return who was rolled back by whom, how soon after it went bad, and what else was said."""
    requests = f"{scene.rps * scene.weights[0][1] * 0.6:g}"
    rolled_back = tuple(
        _when([at - scene.bad_from_s for at in found.condemned_at[judge]], found.runs)
        for judge in JUDGES
    )
    others = (_pct(found.let_pass, found.runs), _pct(found.undecided, found.runs))
    return (requests, *rolled_back, *others)


def by_ours(scene: Scene, found: Figures) -> tuple[str, ...]:
    """Return the same of our own judges only: the others don't look at durations here."""
    return delays(scene, found)[:3]


def _pct(count: int, runs: int) -> str:
    share = 100 * count / runs
    return f"{share:.1f} %" if 0 < share < 10 else f"{share:.0f} %"


def _when(seconds: Sequence[int], runs: int) -> str:
    """Return how many, and after how long half of these."""
    if not seconds:
        return "0 %"
    middle = median(seconds)
    if middle < 0:
        return f"{_pct(len(seconds), runs)}, before"
    after = f"{middle:.0f} s" if middle < 120 else f"{middle / 60:.1f} min"
    return f"{_pct(len(seconds), runs)}, {after}"


# -- tables ---------------------------------------------------------------------------------------

ALL = ("compare", "max_error_rate: 1%", "1 bad minute", "5 bad minutes")
OTHERS = ("let pass", "no verdict")
PLACE = ("rps", "weight")

TABLES = (
    Table(
        "What was rolled back although it was as good as stable",
        tuple(innocent(RATES, has_affinity=False)),
        300,
        BY_ERRORS,
        ("what happens", *PLACE, *ALL, "compare passes"),
        shares,
    ),
    Table(
        "The same with `affinity: client`",
        tuple(innocent(FEW_RATES, has_affinity=True)),
        150,
        BY_ERRORS,
        ("what happens", *PLACE, *ALL, "compare passes"),
        shares,
    ),
    Table(
        "What was rolled back of what was worse, and how soon",
        (*guilty(RATES, has_affinity=False), LATE),
        100,
        BY_ERRORS,
        ("of the candidate fail", *PLACE, "its requests a minute", *ALL, *OTHERS),
        delays,
    ),
    Table(
        "The same with `affinity: client`",
        tuple(guilty(FEW_RATES, has_affinity=True)),
        100,
        BY_ERRORS,
        ("of the candidate fail", *PLACE, "its requests a minute", *ALL, *OTHERS),
        delays,
    ),
    Table(
        "What was rolled back of what was slower, and how soon",
        tuple(slow()),
        100,
        BY_LATENCY,
        ("its answers take", *PLACE, "its requests a minute", "compare", "max_p95: 120ms"),
        by_ours,
    ),
)


INNOCENT = 2
"""So many tables, the first, are about candidates that nobody should condemn."""


def line(table: Table, scene: Scene, found: Figures) -> str:
    """Return the row of a scene."""
    weights = ", ".join(str(weight) for _, weight in scene.weights)
    cells = (scene.story, f"{scene.rps:g}", f"{weights} %", *table.cells(scene, found))
    return f"| {' | '.join(cells)} |"


def lines(table: Table, found: Sequence[Figures]) -> Iterator[str]:
    """Yield a table with its heading."""
    yield f"### {table.name}"
    yield ""
    yield f"{table.runs} rollouts a row."
    yield ""
    yield f"| {' | '.join(table.heads)} |"
    yield f"| {' | '.join(['---'] * len(table.heads))} |"
    for scene, figures_ in zip(table.scenes, found, strict=True):
        yield line(table, scene, figures_)
    yield ""


def total(found: Sequence[Figures]) -> Iterator[str]:
    """Yield what all innocents together say of the bound."""
    runs = sum(figures_.runs for figures_ in found)
    compare, limit = (sum(one.count(judge) for one in found) for judge in JUDGES[:2])
    yield (
        f"Of all these {runs} innocents `compare` condemned {compare} and `max_error_rate` {limit};"
        f" with {ALPHA:.0%} each it would be {ALPHA * runs:.0f}, give or take."
    )
    yield ""


def measured() -> str:
    """Play everything, on all cores, and return the tables."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [
            [pool.submit(figures, scene, table.runs, table.gates) for scene in table.scenes]
            for table in TABLES
        ]
        found = [[job.result() for job in row] for row in jobs]
    parts = [list(lines(table, row)) for table, row in zip(TABLES, found, strict=True)]
    parts.insert(INNOCENT, list(total([one for row in found[:INNOCENT] for one in row])))
    return "\n".join(text for part in parts for text in part)


def main() -> None:
    """Print the tables, or put them where the page has its marks."""
    tables = measured()
    if "--write" not in sys.argv:
        sys.stdout.write(tables)
        return
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
