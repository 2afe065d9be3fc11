"""Two installations on one machine never use the same addresses."""

import pytest

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.embedded.pool import locked


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.241.0.0/16", "127.241.0.0/16"),
        ("127.241.0.0/16", "127.241.9.0/24"),
        ("127.241.9.0/24", "127.241.8.0/22"),
    ],
)
def test_pools_that_overlap_exclude_each_other(one: str, other: str) -> None:
    with locked(one), pytest.raises(RuntimeFailure, match="address_pool"), locked(other):
        pass


def test_pools_side_by_side_are_free() -> None:
    with locked("127.241.8.0/24"), locked("127.241.9.0/24"):
        pass


def test_a_pool_is_free_again_afterwards() -> None:
    for _ in range(2):
        with locked("127.241.0.0/22"):
            pass
