"""What operators type, from the command line down to processes and traffic."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client_support import Load
from support.service_support import Installation, installed, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture
def house(tmp_path: Path, registry: str) -> Iterator[Installation]:
    """Yield an installation whose only step is held until somebody types something."""
    with installed(tmp_path, registry, hold="10m") as installation:
        installation.push("v1")
        yield installation


def does(house: Installation, *arguments: str) -> str:
    answer = house.cli(*arguments)
    assert answer.returncode == 0, answer.stderr + house.log()
    return answer.stdout


def refuses(house: Installation, *arguments: str) -> str:
    answer = house.cli(*arguments)
    assert (answer.returncode, answer.stdout) == (1, "")
    return answer.stderr


def wait_for_step(house: Installation) -> None:
    def in_step() -> bool:
        status = house.status()
        return bool(status and status["rollout"] and status["rollout"]["step"] == 1)

    wait_for("the step", in_step)


def wait_for_groups(house: Installation, count: int) -> None:
    def are_ready() -> bool:
        status = house.status()
        return status is not None and len([g for g in status["groups"] if g["ready"]]) == count

    wait_for(f"{count} ready groups", are_ready)


def test_a_rollout_is_paused_resumed_promoted_rolled_back_and_tried_again(
    house: Installation,
) -> None:
    house.start().wait_until_serving("v1")
    assert "no rollout is under way" in refuses(house, "pause", "shop")
    assert "there is no revision before this one" in refuses(house, "rollback", "shop")
    house.push("v2")
    wait_for_step(house)

    with Load(house.ports["http"]) as load:
        assert "`trafficmgr resume shop`" in does(house, "pause", "shop")
        assert "was paused by an operator at step 1 of 1" in does(house, "why", "shop")
        assert "paused already" in refuses(house, "pause", "shop")
        assert "for another" in does(house, "resume", "shop")
        does(house, "promote", "shop", "--full")
        house.wait_until_serving("v2")

        does(house, "rollback", "shop")
        house.wait_until_serving("v1")
        assert "in quarantine: an operator rolled it back" in does(house, "why", "shop")

        does(house, "retry", "shop")
        wait_for_step(house)
        does(house, "promote", "shop")
        house.wait_until_serving("v2")

    assert load.failed == []
    assert load.cut == 0


def test_a_scaled_endpoint_has_as_many_groups_and_no_request_fails(house: Installation) -> None:
    house.start().wait_until_serving("v1")

    with Load(house.ports["http"]) as load:
        does(house, "scale", "shop", "4")
        wait_for_groups(house, 4)
        assert len(house.group_pids()) == 4

        does(house, "scale", "shop", "1")
        wait_for("one group", lambda: len(house.group_pids()) == 1)
        wait_for_groups(house, 1)
        load.wait_for_more(20)

    assert load.failed == []
    assert load.cut == 0
    assert "scaled to 1 by an operator; the config says 2" in does(house, "status")
