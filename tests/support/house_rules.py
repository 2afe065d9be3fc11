"""The rules of the house as functions: source in, sentences about what breaks a rule out.

tests/test_house.py holds the tree against them, and plants an offence against each to see that it
is noticed. What ruff and import-linter can say by themselves is not said again here, except where
the replacement is worth naming.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

SCREEN_LINES = 50
LONGEST_FILE_LINES = 400

INSTEAD_OF = {
    "time.time": "take `now` or `event.at`; at an edge, clock_gettime(CLOCK_BOOTTIME)",
    "asyncio.create_task": "use a TaskGroup: every task has an owner who awaits it",
    "asyncio.ensure_future": "use a TaskGroup: every task has an owner who awaits it",
    "os.system": "start a process with a list of arguments",
    "os.popen": "start a process with a list of arguments",
}
"""Banned call -> what to write instead."""

NO_CLOCK_NO_WORLD = frozenset(
    {"asyncio", "logging", "os", "random", "secrets", "select", "socket", "sqlite3"}
    | {"subprocess", "threading", "time", "uuid", "zoneinfo"}
)
"""What core and wire may not import: anything that asks for the time, for chance, or for I/O."""

ASKS_THE_CALENDAR = frozenset(
    {"datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"}
    | {"datetime.date.today"}
)
"""datetime itself is pure; these are not."""

_SILENT_NOQA = re.compile(r"#\s*noqa(:\s*[A-Z]+[0-9]+(\s*,\s*[A-Z]+[0-9]+)*)?\s*$")
_TEST = re.compile(r"`?(tests/[\w/]+\.py)::(\w+)(?:\[[^\]]*\])?`?")
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ")
_MACHINE = re.compile(r"(?<![\w.])/(?:work|root|farm|home/\w+)/|/tmp/bash[_]jobs")
_REGISTRY = re.compile(
    r"index[-]url|find[-]links|https?://[\w.-]*(?:py[p]i|python[h]osted|npm[j]s|deb[i]an\.org)\b"
)
"""The brackets keep this page from breaking its own rule."""


# -- one module -----------------------------------------------------------------------------------


def long_functions(tree: ast.Module) -> Iterator[str]:
    """Yield functions that outgrow a screen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > SCREEN_LINES:
                yield f"{node.name} has {lines} lines; a screen holds {SCREEN_LINES}"


def long_file(source: str) -> Iterator[str]:
    """Yield the file if it outgrows its room."""
    lines = source.count("\n")
    if lines > LONGEST_FILE_LINES:
        yield f"{lines} lines; more than {LONGEST_FILE_LINES} is two nouns in one file"


def banned_calls(tree: ast.Module) -> Iterator[str]:
    """Yield calls that have a better replacement here."""
    names = dict(_imported_names(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        if called in INSTEAD_OF:
            yield f"line {node.lineno}: {called}: {INSTEAD_OF[called]}"
        for keyword in node.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg == "shell" and is_true:
                yield f"line {node.lineno}: shell=True: pass a list of arguments"


def impurities(tree: ast.Module) -> Iterator[str]:
    """Yield what brings time, chance or the world into a pure room."""
    for module, line in imported_modules(tree):
        if module.split(".")[0] in NO_CLOCK_NO_WORLD:
            yield f"line {line}: imports {module}; time comes in with the event"
    names = dict(_imported_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func, names) in ASKS_THE_CALENDAR:
            yield f"line {node.lineno}: asks what day it is; time comes in with the event"


def silent_exceptions(source: str) -> Iterator[str]:
    """Yield `noqa` comments that do not say why."""
    for number, line in enumerate(source.splitlines(), 1):
        if _SILENT_NOQA.search(line):
            yield f"line {number}: a noqa without its rule and its reason"


def machine_paths(text: str) -> Iterator[str]:
    """Yield what ties a file to one machine: absolute paths of it, addresses of registries."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in (_MACHINE.search(line), _REGISTRY.search(line)):
            if found:
                yield f"line {number}: {found.group()} is only true on one machine"


# -- the whole tree -------------------------------------------------------------------------------


def lonely_modules(trees: Mapping[str, ast.Module], entry_points: Mapping[str, str]) -> set[str]:
    """Return modules that nobody imports and nobody starts by name.

    Args:
        trees: Module name -> its tree, for the whole package.
        entry_points: Modules that are reached from outside -> why.
    """
    used = set(entry_points)
    for name, tree in trees.items():
        own = {name}
        used |= {module for module, _ in imported_modules(tree)} - own
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used |= _started_by(node.value, trees) - own
    packages = {name for name in trees if any(other.startswith(f"{name}.") for other in trees)}
    return set(trees) - used - packages


def _started_by(text: str, trees: Mapping[str, ast.Module]) -> set[str]:
    """Return the modules that a string names: "trafficmgr.service" after -m, or "shim.py"."""
    if text in trees:
        return {text}
    if text.endswith(".py"):
        stem = text.rpartition("/")[2].removesuffix(".py")
        return {name for name in trees if name.endswith(f".{stem}")}
    return set()


def imported_modules(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (module, line) for every import; `from a import b` yields a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def _imported_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield local name -> dotted name for every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """Return the dotted name of what is called, through import aliases; "" if it has none."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=inner, attr=attr):
            outer = _dotted(inner, names)
            return f"{outer}.{attr}" if outer else ""
        case _:
            return ""


# -- documents ------------------------------------------------------------------------------------


def promises_without_test(text: str, root: Path) -> Iterator[str]:
    """Yield promises of docs/behaviour.md whose test is missing.

    A promise is a list item at the left margin, with the lines that belong to it; it names its
    tests as `tests/path.py::test_name`.
    """
    promises = list(_items(text))
    if not promises:
        yield "there is no promise at all"
    for line, promise in promises:
        named = _TEST.findall(promise)
        if not named:
            yield f"line {line}: names no test: {promise[:60].strip()}.."
        for file, test in named:
            if not _has_test(root / file, test):
                yield f"line {line}: there is no {file}::{test}"


def _items(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each list item at the left margin, outside code blocks."""
    started, item, is_code = 0, "", False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.startswith("```"):
            is_code = not is_code
        begins = bool(_ITEM.match(line)) and not is_code
        if item and (begins or (line and not line[0].isspace()) or number > text.count("\n") + 1):
            yield started, item
            item = ""
        if begins:
            started, item = number, line
        elif item:
            item += f"\n{line}"
    if item:
        yield started, item


def _has_test(file: Path, test: str) -> bool:
    if not file.exists():
        return False
    nodes = ast.walk(ast.parse(file.read_text("utf-8")))
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.name == test
        for node in nodes
    )


def undocumented_keys(keys: set[str], example: str) -> set[str]:
    """Return the keys of the language that the annotated example does not show."""
    shown = set(re.findall(r"(?<![\w-])([a-z0-9_]+)\"?\s*:(?=\s|$)", example, re.MULTILINE))
    return keys - shown


def misnumbered(names: list[str]) -> Iterator[str]:
    """Yield decision records that break the row 0001-some-name.md, 0002-..."""
    for expected, name in enumerate(sorted(names), 1):
        if not re.fullmatch(rf"{expected:04d}-[a-z0-9]+(?:-[a-z0-9]+)*\.md", name):
            yield f"{name}: expected {expected:04d}-some-name.md"
