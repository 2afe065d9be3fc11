"""The rules of the house (STYLE.md), held against the tree.

For each rule there is a test of the tree, and a planted offence that it must notice.
"""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support import house_rules as rules

from trafficmgr.config.schema import known_keys

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "trafficmgr"

ENTRY_POINTS = {
    "trafficmgr.__main__": "python -m trafficmgr",
    "trafficmgr.cli.main": "the console script (pyproject.toml)",
    "trafficmgr.service.__main__": "python -m trafficmgr.service (cli/run.py)",
    "trafficmgr.admin.operations": "writes docs/operations.md",
    "trafficmgr.cli.runtimes_page": "writes docs/runtimes.md",
    "trafficmgr.runtimes.memory": "the runtime of tests; passes the same conformance suite",
}
AWAITED = {
    "trafficmgr.core.methods": "routing methods, which no endpoint can have yet (docs/dns.md)",
    "trafficmgr.wire.zone_file": "static records, which no zone can have yet (docs/dns.md)",
    "trafficmgr.wire.zone_tree": "as zone_file",
}
"""Built before what uses it; each goes from here when it is."""


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield (path below the root, text) of every Python file in folders of the tree."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield str(file.relative_to(ROOT)), file.read_text("utf-8")


@cache
def parsed(text: str) -> ast.Module:
    """Parse once: half of the rules walk the same trees."""
    return ast.parse(text)


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def tree_files() -> list[Path]:
    """Return the files that are tracked, or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],  # noqa: S607  git from PATH, as people use it
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    return [file for file in files if file.is_file()]


def assert_none(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


# -- the tree -------------------------------------------------------------------------------------


def test_every_function_fits_a_screen() -> None:
    assert_none(
        [
            f"{path}: {problem}"
            for path, text in sources("trafficmgr", "demo", "tests")
            for problem in rules.long_functions(parsed(text))
        ]
    )


def test_every_file_holds_one_noun() -> None:
    assert_none(
        [
            f"{path}: {problem}"
            for path, text in sources("trafficmgr", "demo")
            for problem in rules.long_file(text)
        ]
    )


def test_every_module_is_used() -> None:
    trees = {module_name(path): parsed(text) for path, text in sources("trafficmgr")}

    lonely = rules.lonely_modules(trees, ENTRY_POINTS)

    assert_none([f"{m}: nobody imports it" for m in sorted(lonely - AWAITED.keys())])
    assert_none([f"{m}: somebody uses it, it is awaited no more" for m in AWAITED.keys() - lonely])


def test_no_banned_call() -> None:
    assert_none(
        [
            f"{path}: {problem}"
            for path, text in sources("trafficmgr", "demo", "tests")
            for problem in rules.banned_calls(parsed(text))
        ]
    )


def test_core_and_wire_never_ask_what_time_it_is() -> None:
    assert_none(
        [
            f"{path}: {problem}"
            for path, text in sources("trafficmgr/core", "trafficmgr/wire")
            for problem in rules.impurities(parsed(text))
        ]
    )


def test_every_exception_from_a_rule_says_why() -> None:
    assert_none(
        [
            f"{path}: {problem}"
            for path, text in sources("trafficmgr", "demo", "tests")
            if path != "tests/test_house.py"  # it plants one
            for problem in rules.silent_exceptions(text)
        ]
    )


def test_no_file_knows_one_machine() -> None:
    problems = []
    for file in tree_files():
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        problems += [f"{file.relative_to(ROOT)}: {p}" for p in rules.machine_paths(text)]

    assert_none(problems)


def test_every_key_is_documented_in_the_example() -> None:
    example = (ROOT / "config" / "example.yaml").read_text("utf-8")

    missing = rules.undocumented_keys(known_keys(), example)

    assert_none([f"config/example.yaml does not show {key!r}" for key in sorted(missing)])


def test_every_promise_has_its_test() -> None:
    text = (ROOT / "docs" / "behaviour.md").read_text("utf-8")

    assert_none([f"docs/behaviour.md: {p}" for p in rules.promises_without_test(text, ROOT)])


def test_decisions_are_numbered_in_a_row() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*"))
    unheaded = [r.name for r in records if not r.read_text("utf-8").startswith("# ")]

    assert_none([*rules.misnumbered([r.name for r in records])])
    assert_none([f"{name}: begins with no heading" for name in unheaded])
    assert records, "there is no decision record"


# -- planted offences -----------------------------------------------------------------------------


def test_a_long_function_is_noticed() -> None:
    body = "    x = 1\n" * rules.SCREEN_LINES

    assert [*rules.long_functions(ast.parse(f"def f():\n{body}"))]
    assert not [*rules.long_functions(ast.parse(f"def f():\n{body[10:]}"))]


def test_a_long_file_is_noticed() -> None:
    assert [*rules.long_file("\n" * 401)]
    assert not [*rules.long_file("\n" * 400)]


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "import time as t\nt.time()",
        "from time import time\ntime()",
        "from time import time as now\nnow()",
        "import asyncio\nasyncio.create_task(f())",
        "import os\nos.system('true')",
        "import subprocess\nsubprocess.run('true', shell=True)",
    ],
)
def test_a_banned_call_is_noticed(source: str) -> None:
    assert [*rules.banned_calls(ast.parse(source))]


@pytest.mark.parametrize(
    "source",
    ["import time\ntime.monotonic()", "tasks.create_task(f())", "run(['x'], shell=False)"],
)
def test_an_innocent_call_is_not(source: str) -> None:
    assert not [*rules.banned_calls(ast.parse(source))]


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import path",
        "import asyncio.events",
        "from datetime import datetime\ndatetime.now()",
    ],
)
def test_an_impurity_is_noticed(source: str) -> None:
    assert [*rules.impurities(ast.parse(source))]
    assert not [*rules.impurities(ast.parse("from datetime import datetime\ndatetime(2026, 1, 1)"))]


def test_a_lonely_module_is_noticed() -> None:
    trees = {
        "p": ast.parse(""),
        "p.a": ast.parse("from p import b"),
        "p.b": ast.parse("START = ['-m', 'p.c']; SHIM = 'shim.py'"),
        "p.c": ast.parse("import p.c"),
        "p.shim": ast.parse(""),
        "p.lonely": ast.parse("import p.lonely"),
    }

    assert rules.lonely_modules(trees, {"p.a": "the start"}) == {"p.lonely"}


@pytest.mark.parametrize("line", ["x = 1  # noqa", "x = 1  # noqa: S101", "x  # noqa: S101, PLR20"])
def test_a_silent_exception_is_noticed(line: str) -> None:
    assert [*rules.silent_exceptions(line)]
    assert not [*rules.silent_exceptions(f"{line}: S101  an invariant, stays on")]


@pytest.mark.parametrize(
    "text",
    ["see /" + "work/main/x.py", "/" + "root/.cache", "pip install --index" + "-url x"],
)
def test_a_path_of_one_machine_is_noticed(text: str) -> None:
    assert [*rules.machine_paths(text)]
    assert not [*rules.machine_paths("see work/main.py, $HOME/x and docs/homework/x")]


def test_an_undocumented_key_is_noticed() -> None:
    example = "state_dir: x\n# workers: 2\nrollout: {hold: 1s, weight: 2}\n"

    assert rules.undocumented_keys({"state_dir", "workers", "hold", "watch"}, example) == {"watch"}


def test_a_promise_without_a_test_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("def test_it() -> None: ...\n")
    text = (
        "# Behaviour\n\n"
        "- Kept: `tests/test_x.py::test_it`\n"
        "- Wrapped over\n  two lines (`tests/test_x.py::test_it[quick]`)\n\n"
        "Some text.\n\n"
        "- Broken: `tests/test_x.py::test_other`\n"
        "- Forgotten.\n"
    )

    problems = list(rules.promises_without_test(text, tmp_path))

    assert problems == [
        "line 9: there is no tests/test_x.py::test_other",
        "line 10: names no test: - Forgotten...",
    ]
    assert [*rules.promises_without_test("# Behaviour\n", tmp_path)] == [
        "there is no promise at all"
    ]


def test_a_gap_in_the_decisions_is_noticed() -> None:
    assert not [*rules.misnumbered(["0001-one.md", "0002-two-words.md"])]
    assert [*rules.misnumbered(["0001-one.md", "0003-three.md"])]
    assert [*rules.misnumbered(["first.md"])]
