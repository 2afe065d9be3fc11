"""A registry for all tests of whole installations."""

from collections.abc import Iterator

import pytest
from support.registry_support import demo_registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host
