"""What the journal's tests share: small entries, and a writer process that gets killed."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from trafficmgr.journal.sqlite import Entry, Journal


def entry(number: int, endpoint: str = "shop") -> Entry:
    """Return an event that adds `number` to the endpoint's counter."""
    return Entry(
        at=float(number),
        boot_id="boot-1",
        endpoint=endpoint,
        kind="Added",
        event=json.dumps({"add": number}).encode(),
    )


async def fold(journal: Journal) -> dict[str, int]:
    """Return each endpoint's counter as all events together say it."""
    sums: dict[str, int] = {}
    async for stored in journal.replay():
        added = json.loads(stored.entry.event)["add"]
        sums[stored.entry.endpoint] = sums.get(stored.entry.endpoint, 0) + added
    return sums


async def counters(journal: Journal) -> dict[str, int]:
    """Return each endpoint's counter as the kept states say it."""
    return {name: int(state) for name, state in (await journal.load()).states.items()}


async def count(path: Path) -> None:
    """Append batches for ever and print the seq of each one that is durable.

    A batch has several events for two endpoints, so that half a batch would show.
    """
    journal = await Journal.open(path)
    sums = await counters(journal)
    number = 0
    while True:
        number += 1
        batch = [entry(number), entry(number, "blog"), entry(number)]
        for one in batch:
            sums[one.endpoint] = sums.get(one.endpoint, 0) + number
        states = {name: str(total).encode() for name, total in sums.items()}
        seq = await journal.append(batch, states)
        print(seq, flush=True)  # noqa: T201  the parent reads it


def main(arguments: Sequence[str]) -> None:
    """Be the writer process: `journal_support.py PATH`."""
    asyncio.run(count(Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
