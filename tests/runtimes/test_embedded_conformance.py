"""The embedded runtime keeps the contract, with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conformance import RuntimeConformance
from conformance_groups import GroupConformance
from support.conformance_bench import EmbeddedGroups


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedGroups]:
    bench = EmbeddedGroups(tmp_path)
    yield bench
    await bench.close()


@pytest.mark.processes
class TestEmbeddedRuntime(RuntimeConformance, GroupConformance):
    pass
