"""What is reported of counts that rest is made once, and anew whenever anything was counted."""

from collections.abc import Callable

import pytest

from trafficmgr.dataplane.tallies import ANSWERED_5XX, Tally


def _begin(tally: Tally) -> None:
    tally.requests += 1
    tally.in_flight += 1


def _end(tally: Tally) -> None:
    tally.in_flight -= 1


def _fail(tally: Tally) -> None:
    tally.answered(0.5)
    tally.in_flight -= 1
    tally.fail(ANSWERED_5XX)
    tally.finish_for(7, is_failed=True)


def _move(tally: Tally) -> None:
    tally.in_flight -= 1
    tally.moved += 1


def _miss(tally: Tally) -> None:
    tally.requests += 1
    tally.fail("no_target")


def _answer_dns(tally: Tally) -> None:
    tally.dns += 1


def _spill(tally: Tally) -> None:
    tally.spilled += 1


def _eject(tally: Tally) -> None:
    tally.ejected += 1


def _wait(tally: Tally) -> None:
    tally.waiting += 1


def _preview(tally: Tally) -> None:
    tally.of_preview().dns += 1


def _forget_clients(tally: Tally) -> None:
    tally.tell_apart(is_wanted=False)


STORIES: list[list[Callable[[Tally], None]]] = [
    [_begin, _end],
    [_begin, _fail],
    [_begin, _fail, _forget_clients],
    [_begin, _begin, _move, _end],
    [_miss, _miss],
    [_answer_dns, _spill, _eject, _wait, _preview, _preview],
]


@pytest.mark.parametrize("story", STORIES)
def test_what_is_reported_is_what_was_counted(story: list[Callable[[Tally], None]]) -> None:
    tally = Tally()
    tally.tell_apart(is_wanted=True)
    tally.frozen()

    for event in story:
        event(tally)

        assert tally.frozen() == tally._counted()


def test_counts_that_rest_are_not_made_again() -> None:
    tally = Tally()
    _miss(tally)

    assert tally.frozen() is tally.frozen()
