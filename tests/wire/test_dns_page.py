"""docs/dns.md has every line of the list, and names tests that there are."""

import re
from pathlib import Path

import pytest
from support import house_rules as rules

ROOT = Path(__file__).parents[2]
LINES = 32
_ROW = re.compile(r"^\| \((\d+)\) [^|]+ \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
_SHORT = re.compile(r"\b(queries|fuzz)\b")


def problems_of(page: str, root: Path) -> list[str]:
    """Return what is wrong with the page."""
    rows = _ROW.findall(page)
    numbers = [int(number) for number, _ in rows]
    problems = [f"({n}) is not there once" for n in range(1, LINES + 1) if numbers.count(n) != 1]
    for number, held_by in rows:
        if not (rules._TEST.search(held_by) or _SHORT.search(held_by)):
            problems.append(f"({number}) is held by nothing")
    for file, test in rules._TEST.findall(page):
        if not rules._has_test(root / file, test):
            problems.append(f"there is no {file}::{test}")
    return problems


def test_every_line_is_there_and_held_by_tests_that_there_are() -> None:
    page = (ROOT / "docs" / "dns.md").read_text("utf-8")

    assert problems_of(page, ROOT) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| (7) ", "| (8) "),
        ("| (25) NSID", "| 25 NSID"),
        ("test_a_query_may_arrive_byte_by_byte", "test_that_is_gone"),
        ("FORMERR | queries, fuzz |", "FORMERR | nobody |"),
    ],
)
def test_a_page_that_lacks_something_is_noticed(old: str, new: str) -> None:
    page = (ROOT / "docs" / "dns.md").read_text("utf-8")

    assert old in page
    assert problems_of(page.replace(old, new), ROOT) != []
