"""How long what failed is left alone."""

from trafficmgr.registry.backoff import Backoff


def test_backoff_doubles_up_to_four_intervals() -> None:
    backoff = Backoff(lambda: 1.0)
    waits = []
    for at in range(0, 20000, 1000):
        backoff.failed(started_at=at, now=at, every_s=60)
        waits.append(backoff.until - at)
    assert waits[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 240, 240]

    assert _longest(every_s=1) == 60
    assert _longest(every_s=3600) == 900


def _longest(every_s: float) -> float:
    backoff = Backoff(lambda: 1.0)
    for at in range(100):
        backoff.failed(started_at=at, now=at, every_s=every_s)
    return backoff.until - 99


def test_polls_that_fail_together_count_once() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(50):
        backoff.failed(started_at=0.0, now=5.0, every_s=60)
    assert backoff.until == 6.0


def test_a_success_from_before_the_failure_does_not_end_the_wait() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(started_at=0.0, now=5.0, every_s=60, asked_s=30.0)
    backoff.succeeded(started_at=4.0)
    assert backoff.until == 35.0
    backoff.succeeded(started_at=36.0)
    assert backoff.until == float("-inf")


def test_a_wait_that_nobody_means_is_cut_to_six_hours() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.failed(started_at=0.0, now=0.0, every_s=60, asked_s=1e9)
    assert backoff.until == 6 * 3600
