"""The jobs example: three containers in a group, upgraded under load, and no job is lost."""

import asyncio
from pathlib import Path

import pytest
import yaml
from support.example_support import RUNTIMES, Example, engine_of, example, need_port_80
from support.service_support import wait_for

from demo.jobs import images
from demo.jobs.crowd import Crowd

pytestmark = pytest.mark.processes

SOURCE = Path(images.__file__).with_name("jobs.yaml")
HOST = "jobs.apps.test"
JOBS = 20
"""So many must be done before the upgrade, and so many by the new version after it began."""


def push(jobs: Example, version: str) -> None:
    """Push all three programs."""
    asyncio.run(images.push_all(jobs.house.registry, version, jobs.layers))


def wait_until_serving(jobs: Example, version: str) -> list[str]:
    """Wait until a version is all there is; return its groups."""

    def serving() -> list[str]:
        endpoint = jobs.endpoint("jobs")
        if endpoint is None or jobs.house.get("/healthz", HOST) != (200, version):
            return []
        return [group["id"] for group in endpoint["groups"]]

    found: list[str] = wait_for(f"{version} to serve", serving, every_s=0.2)
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_upgrade_under_load_loses_no_job(
    runtime: str, tmp_path: Path, registry: str, request: pytest.FixtureRequest
) -> None:
    need_port_80()
    config = yaml.safe_load(SOURCE.read_text("utf-8"))
    endpoint = config["endpoints"]["jobs"]
    endpoint["rollout"] |= {"steps": [{"weight": 50, "hold": "1s"}], "min_ready": "0s"}
    endpoint["group"]["volumes"][0]["host_path"] = str(tmp_path / "jobs")
    (tmp_path / "jobs").mkdir()
    with example(tmp_path, registry, config, engine_of(runtime, request)) as jobs:
        jobs.write()
        push(jobs, "v1")
        jobs.house.start()
        first = wait_until_serving(jobs, "v1")

        with Crowd(f"127.0.0.1:{jobs.house.ports['http']}", HOST) as crowd:
            wait_for("jobs to be done by v1", lambda: crowd.versions()["v1"] >= JOBS)
            push(jobs, "v2")
            wait_until_serving(jobs, "v2")
            wait_for("jobs to be done by v2", lambda: crowd.versions()["v2"] >= JOBS)
        lost = crowd.lost()
        last_words = [jobs.logs(group, "worker").splitlines()[-1] for group in first]
        print(crowd.receipt())  # noqa: T201  pytest shows it with a failure, and with -rP
        jobs.house.stop(groups=True)

        assert (crowd.failed, lost, crowd.wrong()) == ([], [], [])
        assert last_words == ["drained"] * 2
        assert jobs.containers() == []
