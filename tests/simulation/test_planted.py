"""A test of the tests: every planted bug is found, by the oracle of the promise that it breaks."""

import pytest
from simulation import history, planted, planted_proofs
from simulation.planted import Planted

MOST_SEEDS = 1000
BUGS = (*planted.BUGS, *planted_proofs.BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.bug.__name__)
def test_a_planted_bug_is_found(bug: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    """The core as it is passes the same seeds in test_simulation."""
    with bug.bug():
        found = (seed for seed in range(MOST_SEEDS) if history.run(seed).oracle == bug.oracle)
        seed = next(found, None)
    assert seed is not None, f"{bug.oracle} noticed nothing in {MOST_SEEDS} histories"
    with capsys.disabled():
        print(f"\n{bug.bug.__name__}: {bug.oracle} at seed {seed}", end="")  # noqa: T201  a figure
