"""Real registries, started once for all tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.registry_support import demo_registry, docker_registry

from trafficmgr.registry.images import Images
from trafficmgr.registry.store import BlobStore


@pytest.fixture(scope="session")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of a docker-registry that lets everyone in."""
    with docker_registry(tmp_path_factory.mktemp("docker-registry")) as host:
        yield host


@pytest.fixture(scope="session")
def demo_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of the demo's own registry."""
    with demo_registry(tmp_path_factory.mktemp("demo-registry")) as host:
        yield host


@pytest.fixture(
    params=[pytest.param("docker_host", marks=pytest.mark.registry), pytest.param("demo_host")]
)
def any_host(request: pytest.FixtureRequest) -> str:
    """Each of the two in turn."""
    host: str = request.getfixturevalue(request.param)
    return host


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the machine's own docker configuration out of every test; return the test's folder."""
    folder = tmp_path / "docker-config"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    """An empty store."""
    store = BlobStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
async def images(store: BlobStore) -> AsyncIterator[Images]:
    """All registries, without configuration."""
    images = Images(store, {}, timeout_s=10.0)
    yield images
    await images.close()
