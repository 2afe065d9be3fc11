"""docs/failures.md names what shows each row, and everything that it names exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.house_rules import promises_without_test

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "failures.md"
COLUMNS = 3
FINDS = ("_hold", "BrokenPromise")
"""Who says in the simulation that a promise is broken; the first argument is the oracle's name."""


def problems(text: str, root: Path) -> Iterator[str]:
    """Yield what is wrong with the page: rows that nothing shows, names that nothing has."""
    oracles = set(oracles_in(root / "tests" / "simulation"))
    found = 0
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[-1] in {"shown by", "---"}:
            continue
        found += 1
        if len(cells) != COLUMNS or not all(cells):
            yield f"line {number}: {len(cells)} cells, and none may be empty: {line[:60]}.."
            continue
        names = re.findall(r"`([^`]+)`", cells[-1])
        if not names:
            yield f"line {number}: nothing shows it: {cells[0][:60]}.."
        missing = [name for name in names if not exists(name, root, oracles)]
        yield from (f"line {number}: there is no {name}" for name in missing)
    if not found:
        yield "there is no row at all"


def exists(name: str, root: Path, oracles: set[str]) -> bool:
    """Whether there is such a story, test or oracle."""
    if name.endswith(".txt"):
        return (root / "tests" / "scenarios" / name).is_file()
    if "::" in name:
        return not list(promises_without_test(f"- `{name}`", root))
    return name in oracles


def oracles_in(folder: Path) -> Iterator[str]:
    """Yield the names of all oracles: public functions of oracles.py, and those found in place."""
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        if file.name == "oracles.py":
            yield from (n.name for n in tree.body if isinstance(n, ast.FunctionDef))
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Name(id=called) | ast.Attribute(attr=called),
                    args=[ast.Constant(value=str(name)), *_],
                ) if called in FINDS:
                    yield name
                case _:
                    pass


def test_every_failure_is_shown_by_something_that_exists() -> None:
    found = list(problems(PAGE.read_text("utf-8"), ROOT))

    assert not found, "\n" + "\n".join(found)


def test_a_row_that_nothing_shows_is_noticed(tmp_path: Path) -> None:
    """A planted offence of each kind."""
    for folder in ("scenarios", "simulation"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
    (tmp_path / "tests" / "scenarios" / "01_story.txt").write_text("")
    (tmp_path / "tests" / "test_x.py").write_text("def test_it() -> None: ...\n")
    (tmp_path / "tests" / "simulation" / "oracles.py").write_text("def kept() -> str: ...\n")
    (tmp_path / "tests" / "simulation" / "w.py").write_text('self._hold("found_in_place", why)\n')
    text = (
        "| elsewhere | here | shown by |\n|---|---|---|\n"
        "| a | b | `01_story.txt`, `tests/test_x.py::test_it`, `kept`, `found_in_place` |\n"
        "| a | b | `02_story.txt`, `tests/test_x.py::test_other`, `broken` |\n"
        "| a | b | by nothing |\n"
        "| a |  | `kept` |\n"
        "| a | `kept` |\n"
    )

    assert list(problems(text, tmp_path)) == [
        "line 4: there is no 02_story.txt",
        "line 4: there is no tests/test_x.py::test_other",
        "line 4: there is no broken",
        "line 5: nothing shows it: a..",
        "line 6: 3 cells, and none may be empty: | a |  | `kept` |..",
        "line 7: 2 cells, and none may be empty: | a | `kept` |..",
    ]
    assert list(problems("", tmp_path)) == ["there is no row at all"]
