"""The embedded runtime keeps the contract, with real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conformance import RuntimeConformance
from support.runtime_support import EmbeddedBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedBench]:
    bench = EmbeddedBench(tmp_path)
    yield bench
    await bench.close()


@pytest.mark.processes
class TestEmbeddedRuntime(RuntimeConformance):
    pass
