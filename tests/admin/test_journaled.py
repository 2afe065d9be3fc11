"""Events as operators ask for them: checkpoints of gates are left out, and pages are full."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from trafficmgr.admin import journaled
from trafficmgr.core.events import EvidenceKept, Woke
from trafficmgr.core.evidence import Evidence
from trafficmgr.journal.entries import Entry, Stored
from trafficmgr.journal.sqlite import Journal

KINDS = "W E E E W E W E E E E E W E E"


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    await opened.append([entry(kind) for kind in KINDS.split()], {})
    yield opened
    await opened.close()


def entry(kind: str) -> Entry:
    event = (
        Woke(at=1.0, endpoint="shop")
        if kind == "W"
        else EvidenceKept(
            at=1.0, endpoint="shop", rollout="shop-r1", evidence=Evidence(at=1.0, stage=0)
        )
    )
    return Entry(
        at=1.0,
        boot_id="boot-1",
        endpoint="shop",
        kind=type(event).__name__,
        event=msgspec.json.encode(event),
    )


async def page(journal: Journal, after: int, limit: int, *, has_checkpoints: bool) -> list[int]:
    stored: list[Stored] = await journaled.page(
        journal, "shop", after, limit, has_checkpoints=has_checkpoints
    )
    return [one.seq for one in stored]


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (0, 1, [13]),
        (0, 2, [7, 13]),
        (0, 4, [1, 5, 7, 13]),
        (0, 100, [1, 5, 7, 13]),
        (1, 1, [5]),
        (1, 2, [5, 7]),
        (7, 3, [13]),
        (13, 5, []),
        (15, 5, []),
        (99, 5, []),
    ],
)
async def test_a_page_is_full_although_checkpoints_are_left_out(
    journal: Journal, after: int, limit: int, expected: list[int]
) -> None:
    assert await page(journal, after, limit, has_checkpoints=False) == expected


async def test_checkpoints_are_there_for_who_wants_them(journal: Journal) -> None:
    assert await page(journal, 0, 3, has_checkpoints=True) == [13, 14, 15]
    assert await page(journal, 1, 3, has_checkpoints=True) == [2, 3, 4]
    assert await page(journal, 0, 100, has_checkpoints=True) == list(range(1, 16))


async def test_a_limit_of_nothing_is_nothing(journal: Journal) -> None:
    assert await page(journal, 0, 0, has_checkpoints=False) == []
    assert await page(journal, 3, 0, has_checkpoints=False) == []
