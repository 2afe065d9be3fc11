"""Receipts say what clients really felt: each number is held against a client's own count."""

import asyncio
import http.client
import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.client_support import Load
from support.service_support import (
    HOST,
    REPOSITORY,
    Installation,
    installed,
    is_alive,
    wait_for,
)

from demo.builder import push
from demo.versions import image_of

pytestmark = pytest.mark.processes


class CountingLoad(Load):
    """A client that also remembers which version answered with which status."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.seen: Counter[tuple[int, str]] = Counter()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/", headers={"Host": HOST})
        response = connection.getresponse()
        response.read()
        self.seen[response.status, response.headers.get("X-Version", "")] += 1


def push_failing(house: Installation, version: str) -> None:
    """Push a version that is healthy and answers every request with 500."""
    image = image_of(version)
    page = 'self._page = _answer("200 OK"'
    app = image.files["app/app.py"]
    assert isinstance(app, bytes)
    assert page in app.decode()
    broken = app.decode().replace(page, 'self._page = _answer("500 Internal Server Error"')
    files = {**image.files, "app/app.py": broken.encode()}
    url = f"http://{house.registry}"
    asyncio.run(push(url, REPOSITORY, "stable", replace(image, files=files)))


def receipt(house: Installation, rollout: str) -> dict[str, Any] | None:
    answer = house.cli("rollouts", "show", rollout, "--json")
    return json.loads(answer.stdout) if answer.returncode == 0 else None


def wait_until_final(house: Installation, rollout: str) -> dict[str, Any]:
    def final() -> dict[str, Any] | None:
        found = receipt(house, rollout)
        return found if found and found["is_final"] else None

    found: dict[str, Any] = wait_for(f"the final receipt of {rollout}", final)
    return found


def wait_until_in_step(house: Installation) -> None:
    def in_step() -> bool:
        status = house.status()
        return bool(status and status["rollout"] and status["rollout"]["step"] == 1)

    wait_for("the rollout's step", in_step)


def kill_controller(house: Installation) -> None:
    (controller,) = house.children("controller")
    os.kill(controller["pid"], signal.SIGKILL)
    wait_for("the controller to be gone", lambda: not is_alive(controller["pid"]))
    wait_for("a new controller", house.status)


def of(found: dict[str, Any], role: str) -> dict[str, Any]:
    (one,) = [revision for revision in found["revisions"] if revision["role"] == role]
    return dict(one)


@pytest.mark.parametrize("is_killed", [False, True])
def test_completed_rollout_is_counted_exactly(
    tmp_path: Path, registry: str, is_killed: bool
) -> None:
    """The load begins in the step, so what v1 answered to it is what the receipt must say of v1."""
    with installed(tmp_path, registry, hold="6s") as house:
        house.push("v1")
        house.start().wait_until_serving("v1")
        house.push("v2")
        wait_until_in_step(house)
        before = of(receipt(house, "shop-r2") or {}, "from")["requests"]
        with CountingLoad(house.ports["http"]) as load:
            load.wait_for_more(200)
            if is_killed:
                kill_controller(house)
            waited = house.cli("wait", "shop", "--timeout", "60s", "--max-failed", "0")
            found = wait_until_final(house, "shop-r2")

    assert (waited.returncode, waited.stderr) == (0, "")
    assert "0 requests failed" in waited.stdout
    assert (found["outcome"], found["failed"]) == ("completed", 0)
    assert of(found, "from")["requests"] - before == load.seen[200, "v1"]
    assert 0 < of(found, "to")["requests"] <= load.seen[200, "v2"]
    (step,) = [share for share in found["shares"] if share["weight_pct"] == 50]
    assert abs(step["observed_pct"] - 50) < 20
    old = [group for group in found["groups"] if group["role"] == "from"]
    assert len(old) == 2
    for group in old:
        assert found["seconds"] <= group["withdrawn"]["after_s"] < group["stopped"]["after_s"]
    assert bool(found["gaps"]) == is_killed
    assert load.failed == []


def test_aborted_rollout_names_every_failure_even_across_a_killed_controller(
    tmp_path: Path, registry: str
) -> None:
    with installed(tmp_path, registry, hold="10m") as house:
        house.push("v1")
        house.start().wait_until_serving("v1")
        push_failing(house, "v2")
        wait_until_in_step(house)
        with CountingLoad(house.ports["http"]) as load:
            load.wait_for_more(100)
            kill_controller(house)
            load.wait_for_more(100)
            assert house.cli("abort", "shop").returncode == 0
            found = wait_until_final(house, "shop-r2")
            load.wait_for_more(20)
        failed = load.seen[500, "v2"]
        within = house.cli("rollouts", "show", "shop-r2", "--max-failed", str(failed))
        beyond = house.cli("rollouts", "show", "shop-r2", "--max-failed", str(failed - 1))
        waited = house.cli("wait", "shop")
        unknown = house.cli("rollouts", "show", "shop-r99")

    assert failed > 0
    assert found["outcome"] == "aborted"
    assert found["failed"] == failed
    assert [(f["by"], f["cause"], f["role"]) for f in found["failures"]] == [
        ("application", "5xx", "to")
    ]
    assert of(found, "to")["requests"] == failed
    assert all(group["stopped"] for group in found["groups"])
    assert (within.returncode, beyond.returncode) == (0, 1)
    assert f"{failed} requests failed" in within.stdout
    assert f"at most {failed - 1} may" in beyond.stderr
    assert (waited.returncode, unknown.returncode) == (1, 1)
    assert "an operator asked for it" in waited.stderr
    assert unknown.stderr.count("\n") == 1
