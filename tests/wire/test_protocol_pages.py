"""docs/http.md and docs/dns.md have every line of their lists, and name tests that there are."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from support import house_rules as rules

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| \((\d+)\) [^|]+ \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


class Page(NamedTuple):
    """A page, the number of lines that its list has, and short names of tests on it."""

    name: str
    lines: int
    short: re.Pattern[str]

    def text(self) -> str:
        return (ROOT / "docs" / self.name).read_text("utf-8")


HTTP = Page("http.md", 31, re.compile(r"\b(requests|responses|others)\b"))
DNS = Page("dns.md", 32, re.compile(r"\b(queries|fuzz)\b"))


def problems_of(page: Page, text: str, root: Path) -> list[str]:
    """Return what is wrong with the text of a page."""
    rows = _ROW.findall(text)
    numbers = [int(number) for number, _ in rows]
    wanted = range(1, page.lines + 1)
    problems = [f"({n}) is not there once" for n in wanted if numbers.count(n) != 1]
    for number, held_by in rows:
        if not (rules._TEST.search(held_by) or page.short.search(held_by)):
            problems.append(f"({number}) is held by nothing")
    for file, test in rules._TEST.findall(text):
        if not rules._has_test(root / file, test):
            problems.append(f"there is no {file}::{test}")
    return problems


@pytest.mark.parametrize("page", [HTTP, DNS], ids=lambda page: page.name)
def test_every_line_is_there_and_held_by_tests_that_there_are(page: Page) -> None:
    assert problems_of(page, page.text(), ROOT) == []


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        (HTTP, "| (7) ", "| (8) "),
        (HTTP, "| (23) Other", "| 23 Other"),
        (HTTP, "test_a_body_in_chunks_is_measured_as_it_comes", "test_that_is_gone"),
        (HTTP, "| 417 | requests |", "| 417 | nobody |"),
        (DNS, "| (7) ", "| (8) "),
        (DNS, "| (25) NSID", "| 25 NSID"),
        (DNS, "test_a_query_may_arrive_byte_by_byte", "test_that_is_gone"),
        (DNS, "FORMERR | queries, fuzz |", "FORMERR | nobody |"),
    ],
)
def test_a_page_that_lacks_something_is_noticed(page: Page, old: str, new: str) -> None:
    text = page.text()

    assert old in text
    assert problems_of(page, text.replace(old, new), ROOT) != []
