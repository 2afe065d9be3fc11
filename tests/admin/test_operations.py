"""The table of verbs in the docs is the one that decides."""

from pathlib import Path

from trafficmgr.admin.operations import STANDINGS, page
from trafficmgr.core.operator import Standing

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_page_of_verbs_is_current() -> None:
    """If this fails: python -m trafficmgr.admin.operations > docs/operations.md."""
    assert PAGE.read_text("utf-8") == page()


def test_every_standing_is_explained() -> None:
    assert STANDINGS.keys() == set(Standing)
