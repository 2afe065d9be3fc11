"""The memory runtime keeps the contract, so tests may use it in place of a real one."""

from collections.abc import AsyncIterator

import pytest
from conformance import RuntimeConformance
from support.runtime_support import MemoryBench


@pytest.fixture
async def bench() -> AsyncIterator[MemoryBench]:
    bench = MemoryBench()
    yield bench
    await bench.close()


class TestMemoryRuntime(RuntimeConformance):
    pass
