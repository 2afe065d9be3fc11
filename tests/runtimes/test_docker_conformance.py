"""The Docker runtime keeps the contract, on a real engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conformance import RuntimeConformance
from conformance_groups import GroupConformance
from support.docker_bench import DockerBench
from support.docker_images import ImageShelf
from support.dockerd import Dockerd

from trafficmgr.core.template import ImageDigest


@pytest.fixture
async def bench(
    dockerd: Dockerd, image_shelf: ImageShelf, app_digest: ImageDigest, tmp_path: Path
) -> AsyncIterator[DockerBench]:
    bench = DockerBench(dockerd, image_shelf, app_digest, tmp_path)
    yield bench
    await bench.close()


@pytest.mark.docker
@pytest.mark.processes
class TestDockerRuntime(RuntimeConformance, GroupConformance):
    pass
