"""Histories drawn from seeds keep every promise, whatever goes wrong in them.

`pytest tests/simulation --seeds 20000` runs more of them, `-k test_seed -s --seed 17` tells one.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from simulation import campaign, history
from simulation.campaign import Tally

from trafficmgr.core.operator import Standing
from trafficmgr.core.rollout import EVENT_TABLE

REGRESSIONS = Path(__file__).with_name("regressions.txt")
ENOUGH_SEEDS = 2000

Futures = dict[range, "Future[Tally]"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per chunk of seeds, and one per seed that once failed or is asked for."""
    if "chunk" in metafunc.fixturenames:
        some = campaign.chunks(metafunc.config.getoption("--seeds"))
        metafunc.parametrize("chunk", some, ids=[f"{c.start}-{c.stop - 1}" for c in some])
    if "seed" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--seed")
        lines = (line.partition(" ") for line in REGRESSIONS.read_text("utf-8").splitlines())
        known = [int(number) for number, _, _ in lines if number != "#"]
        metafunc.parametrize("seed", known if asked is None else [asked])


@pytest.fixture(scope="module")
def futures(request: pytest.FixtureRequest) -> Iterator[Futures]:
    with campaign.under_way(request.config.getoption("--seeds")) as under_way:
        yield under_way


@pytest.fixture(scope="module")
def total(futures: Futures) -> Tally:
    """What came of all chunks; the same run as that of the tests of the chunks."""
    total = Tally()
    for future in futures.values():
        total.add(future.result())
    return total


def test_seed_keeps_every_promise(seed: int, request: pytest.FixtureRequest) -> None:
    is_asked = request.config.getoption("--seed") is not None
    lines: list[str] = []
    found = history.run(seed, lines=lines)
    if is_asked:
        print("\n".join(["", *lines]))  # noqa: T201  that is what --seed is for
    assert not found.oracle, history.told(seed)


def test_histories_keep_every_promise(chunk: range, futures: Futures) -> None:
    broken = futures[chunk].result().broken
    assert not broken, f"{broken}\n{history.told(broken[0][0])}"


def test_histories_are_long_enough(total: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    mean_events = total.events / total.histories
    mean_revisions = total.revisions / total.histories
    with capsys.disabled():
        print(  # noqa: T201  figures that are asked for
            f"\n{total.histories} histories, {total.histories / total.cpu_s:.0f}/s on one core, "
            f"{mean_events:.0f} events and {mean_revisions:.1f} revisions each"
        )
    assert mean_events >= 100
    assert mean_revisions >= 2


def test_every_event_is_heard_wherever_an_endpoint_can_stand(total: Tally) -> None:
    if total.histories < ENOUGH_SEEDS:
        pytest.skip(f"fewer than {ENOUGH_SEEDS} seeds")
    pairs = {(standing, kind.__name__) for standing in Standing for kind in EVENT_TABLE}
    assert not pairs - total.reached
