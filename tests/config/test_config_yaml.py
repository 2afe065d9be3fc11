"""Syntax, positions, and how plain scalars are read."""

import re
from pathlib import Path

import pytest
from support.config_support import (
    GOOD,
    changed,
    loaded,
    only_problem,
    pointed_at,
    with_lines,
)

from trafficmgr.config.problems import Problem, Span


@pytest.mark.parametrize(
    ("text", "place", "part", "hint"),
    [
        ("a:\n\tb: 1\n", (2, 1), "cannot start any token", "indent with spaces"),
        ("a: b: c\n", (1, 5), "mapping values are not allowed", "in quotes"),
        ("a: [1, 2\nb: 3\n", (2, 2), "that began on line 1", "close the bracket"),
        ("a: {b: c?d}\n", (1, 9), "but got '?'", "put a value that contains ? in quotes"),
        ('a: "b\n', (1, 6), "unexpected end of stream", "close the quotes"),
        ("a: *b\n", (1, 4), "undefined alias", "define it"),
        ("a: 1\n---\nb: 2\n", (2, 1), "another document", 'remove the "---"'),
    ],
)
def test_broken_syntax_has_a_place_and_a_hint(
    tmp_path: Path, text: str, place: tuple[int, int], part: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert (problem.span.line, problem.span.column) == place, str(problem)
    assert problem.text.startswith("this is not YAML: ")
    assert part in problem.text
    assert hint in problem.hint


def test_bytes_that_are_no_text_have_a_place(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, b"a: 1\nb: \xff\n")

    assert (problem.span.line, problem.span.column) == (2, 4)
    assert problem.text == "byte 0xff is not UTF-8"


def test_a_control_character_has_a_place_and_does_not_reach_the_terminal(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, "a: 1\nb: \x1b[2J\n")

    assert (problem.span.line, problem.span.column) == (2, 4)
    assert "\x1b" not in str(problem)


def test_an_escaped_control_character_in_a_key_does_not_reach_the_terminal(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, f'"a\\e[2J\\nb": 1\n{GOOD}')

    assert str(problem).splitlines()[0].endswith('unknown key "a?[2J?b" at the top level')


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    text = with_lines("hosts: [other.apps.test]", after="hosts: [shop.apps.test]")

    problem = only_problem(tmp_path, text)

    assert problem.text == 'key "hosts" is written twice, first on line 8'
    assert (problem.span, pointed_at(problem)) == (Span(9, 5, 5), "hosts")


def test_a_key_without_a_value_is_refused(tmp_path: Path) -> None:
    """A commented-out value would else silently mean the default."""
    problem = only_problem(tmp_path, with_lines("readiness:", after="ports: [8080]"))

    assert problem.text == '"readiness" of container "web" has no value'
    assert pointed_at(problem) == "readiness"


def test_a_required_key_without_a_value_is_one_problem(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed((": [shop.apps.test]", ":")))

    assert problem.text == '"hosts" of endpoint "shop" has no value'


def test_tags_and_merge_keys_are_refused(tmp_path: Path) -> None:
    tagged = only_problem(tmp_path, changed(("replicas: 2", "replicas: !!python/int 2")))
    merged = only_problem(tmp_path, with_lines("<<: {}", after="replicas: 2"))

    assert tagged.text.endswith('has the tag "tag:yaml.org,2002:python/int"')
    assert tagged.hint == "write the value alone"
    assert merged.hint == "merge keys are not read; write the keys out"


def test_anchors_may_be_used(tmp_path: Path) -> None:
    text = changed(("ports: [8080]", "ports: &p [8080]"))
    text += text.partition("endpoints:\n")[2].replace("shop", "api").replace("&p [8080]", "*p")

    assert loaded(tmp_path, text).endpoints["api"].settings.port == 8080


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "- &a\n  - *a\n",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
            for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        "a: " + "[" * 5000 + "\n",
        "a: " + "[" * 100 + "]" * 100 + "\n",
    ],
    ids=["itself", "itself-block", "laughs", "open", "deep"],
)
def test_nesting_without_bound_is_refused(tmp_path: Path, text: str) -> None:
    problem = only_problem(tmp_path, text)

    assert re.search("nested too deeply|contains itself", problem.text)


def test_scalars_that_only_look_like_numbers_stay_text(tmp_path: Path) -> None:
    """YAML 1.1 reads these as an octal, a number to base 60, a date and a number."""
    env = "env: {A: 010, B: 1:30, C: 2026-01-01, D: 1_000, E: 12}"

    found = loaded(tmp_path, with_lines(env, after="ports: [8080]"))

    container = found.endpoints["shop"].settings.template.containers[0]
    assert container.env == {"A": "010", "B": "1:30", "C": "2026-01-01", "D": "1_000", "E": "12"}


@pytest.mark.parametrize("value", ["true", "yes", "off", "1.10"])
def test_a_variable_that_yaml_would_change_must_be_quoted(tmp_path: Path, value: str) -> None:
    text = with_lines(f"env: {{FLAG: {value}}}", after="ports: [8080]")

    problem = only_problem(tmp_path, text)

    assert pointed_at(problem) == value
    assert problem.hint == f'write it in quotes: "{value}"'


def test_carets_stand_behind_the_same_tabs(tmp_path: Path) -> None:
    problem = Problem(tmp_path, Span(3, 4, 2), "is wrong", "fix it", "a\t bb")

    assert str(problem).splitlines()[1:] == ["  3 | a\t bb", "    |  \t ^^ fix it"]
