"""A configuration that is in order, and ways to break it."""

from pathlib import Path

import pytest

from trafficmgr.config.load import load
from trafficmgr.config.problems import ConfigError, Problem
from trafficmgr.config.settings import Settings

GOOD = """\
listen:
  dns: ["127.0.0.1:5300"]
  http: ["127.0.0.1:8080"]
zones:
  - {name: apps.test, ns: [ns1.apps.test]}
endpoints:
  shop:
    hosts: [shop.apps.test]
    group:
      replicas: 2
      containers:
        - name: web
          image: registry.example.com/shop/web:stable
          ports: [8080]
"""


def changed(*changes: tuple[str, str]) -> str:
    """Return the good file with some text replaced."""
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def with_lines(*lines: str, after: str) -> str:
    """Return the good file with lines put after the one that ends so, as far in as it is."""
    written = []
    for line in GOOD.splitlines():
        written.append(line)
        if line.endswith(after):
            indent = " " * (len(line) - len(line.lstrip(" -")))
            written += [indent + new for new in lines]
    assert len(written) > len(GOOD.splitlines()), after
    return "\n".join(written) + "\n"


def loaded(folder: Path, text: str) -> Settings:
    """Load a text as a file."""
    path = folder / "shop.yaml"
    path.write_text(text)
    return load(path)


def problems_of(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    """Load a text that can't be used; returns its problems."""
    path = folder / "shop.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value.problems


def any_problems(path: Path) -> tuple[Problem, ...]:
    """Load a file that may be in order or not; returns its problems."""
    try:
        load(path)
    except ConfigError as error:
        return error.problems
    return ()


def only_problem(folder: Path, text: str | bytes) -> Problem:
    """Load a text with one problem; returns it."""
    problems = problems_of(folder, text)
    assert len(problems) == 1, "\n".join(map(str, problems))
    return problems[0]


def pointed_at(problem: Problem) -> str:
    """Return the piece of its line that a problem's carets stand under."""
    start = problem.span.column - 1
    return problem.source[start : start + problem.span.width]
