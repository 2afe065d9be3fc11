"""The engine is stopped in the middle of a rollout, under load: unknown is not failed (promise 12).

The groups survive it (`live-restore`), so nothing at all may happen to users; the rollout stands
still for as long as nobody knows what runs, and goes on when the engine is back.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client_support import Load
from support.dockerd import Dockerd
from support.example_support import Example, example
from support.service_support import HOST, REPOSITORY, wait_for

from demo.versions import image_of

pytestmark = [pytest.mark.processes, pytest.mark.docker]

CONFIG: dict[str, Any] = {
    "endpoints": {
        "shop": {
            "hosts": [HOST],
            "group": {
                "replicas": 2,
                "containers": [
                    {
                        "name": "web",
                        "image": f"registry.example.com/{REPOSITORY}:stable",
                        "ports": [8080],
                        "readiness": {
                            "http": {"path": "/healthz"},
                            "every": "200ms",
                            "timeout": "2s",
                        },
                    }
                ],
            },
            "update": {"every": "500ms"},
            "rollout": {
                "steps": [{"weight": 50, "hold": "6s"}],
                "min_ready": "0s",
                "deadline": "4s",
                "watch": "1s",
                "keep_previous": "1s",
            },
            "drain": {"http": "2s"},
        }
    }
}


@pytest.fixture
def engine() -> Iterator[Dockerd]:
    with Dockerd("--live-restore") as engine:
        yield engine


def push(shop: Example, version: str) -> None:
    shop.push({REPOSITORY: image_of(version, shop.layers)})


def events_of(shop: Example) -> set[str]:
    """Return the names of all events that the service has logged."""
    return set(re.findall(r"event=(\w+)", shop.house.log()))


def test_an_engine_that_is_away_during_a_rollout_costs_nothing(
    engine: Dockerd, tmp_path: Path, registry: str
) -> None:
    with example(tmp_path, registry, CONFIG, engine) as shop:
        shop.write()
        push(shop, "v1")
        shop.house.start()
        wait_for("v1 to serve", lambda: shop.endpoint("shop"))
        with Load(shop.house.ports["http"]) as load:
            load.wait_for_more(50)
            push(shop, "v2")
            wait_for("v2 to get its share", lambda: "weight_pct=50" in shop.house.log())

            engine.stop()
            wait_for("it to be noticed", lambda: "engine_lost" in shop.house.log())
            load.wait_for_more(200)
            why = shop.house.cli("why", "shop").stdout
            engine.start()
            wait_for("the engine to be seen again", lambda: "engine_found" in shop.house.log())

            wait_for("v2 to be all there is", lambda: shop.house.get()[1] == "v2")
            wait_for("the rollout to end", lambda: shop.endpoint("shop"))
        shop.house.stop(groups=True)

        assert "engine" in why
        assert load.failed == []
        assert load.cut == 0
        assert not {"rollout_aborting", "group_ended"} & events_of(shop)
        assert shop.containers() == []
