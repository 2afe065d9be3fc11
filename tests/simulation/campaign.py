"""Many histories at once, on every core: seeds in chunks, and what came of each chunk.

A pool of processes is as wide as the machine; a chunk is the unit that a test waits for.
"""

import gc
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

from simulation import history

CHUNKS = 20


@dataclass
class Tally:
    """What came of some seeds. `broken` holds (seed, oracle)."""

    histories: int = 0
    cpu_s: float = 0.0
    events: int = 0
    revisions: int = 0
    reached: set[tuple[str, str]] = field(default_factory=set)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take in what came of other seeds."""
        self.histories += other.histories
        self.cpu_s += other.cpu_s
        self.events += other.events
        self.revisions += other.revisions
        self.reached |= other.reached
        self.broken += other.broken


def chunks(seeds: int) -> list[range]:
    """Return the seeds from 0 on in chunks of about the same size."""
    size = -(-seeds // CHUNKS)
    return [range(at, min(at + size, seeds)) for at in range(0, seeds, size)]


def tally(seeds: range) -> Tally:
    """Run the histories of some seeds, one after another."""
    gc.set_threshold(100_000)
    begun = time.process_time()
    found = Tally()
    for seed in seeds:
        one = history.run(seed)
        found.histories += 1
        found.events += one.events
        found.revisions += one.revisions
        found.reached |= one.reached
        if one.oracle:
            found.broken.append((seed, one.oracle))
    found.cpu_s = time.process_time() - begun
    return found


@contextmanager
def under_way(seeds: int) -> Iterator[dict[range, "Future[Tally]"]]:
    """Run all chunks on all cores; yields chunk -> what will come of it."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        futures = {chunk: pool.submit(tally, chunk) for chunk in chunks(seeds)}
        try:
            yield futures
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
