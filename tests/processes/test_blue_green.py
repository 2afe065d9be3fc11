"""Blue-green as its users meet it: a look at the new revision, then everybody at once."""

import http.client
from contextlib import closing
from pathlib import Path

import pytest
from support.client_support import Load
from support.service_support import HOST, Installation, installed, wait_for

pytestmark = pytest.mark.processes

CANARY = "steps: [{weight: 50, hold: 1s}]"
BLUE_GREEN = "strategy: blue-green, preview: {pause: true}"


def preview(house: Installation) -> tuple[int, str]:
    """GET the preview through the proxy; return status and version."""
    connection = http.client.HTTPConnection("127.0.0.1", house.ports["http"], timeout=30)
    with closing(connection):
        connection.request("GET", "/", headers={"Host": f"preview.{HOST}"})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("X-Version", "")


def test_a_paused_preview_is_looked_at_and_then_promoted(tmp_path: Path, registry: str) -> None:
    with installed(tmp_path, registry) as house:
        config = house.config.read_text()
        assert CANARY in config
        house.config.write_text(config.replace(CANARY, BLUE_GREEN))
        house.push("v1")
        house.start().wait_until_serving("v1")
        assert preview(house)[0] == 404

        with Load(house.ports["http"]) as load:
            house.push("v2")
            wait_for("a preview of v2", lambda: preview(house) == (200, "v2"))
            load.wait_for_more(100)
            answers = {house.get() for _ in range(20)}
            wait_for("the rollout to wait", lambda: house.cli("promote", "shop").returncode == 0)
            house.wait_until_serving("v2")
            wait_for("the preview to end", lambda: preview(house)[0] == 404)

        assert answers == {(200, "v1")}
        assert (load.failed, load.cut) == ([], 0)
