"""The page of runtimes is made of what the runtimes say of themselves."""

from pathlib import Path

from trafficmgr.cli.runtimes_page import answer, docker, embedded, page
from trafficmgr.runtimes.contract import BEHAVIOURS
from trafficmgr.runtimes.embedded.gaps import ALWAYS

PAGE = Path(__file__).parents[2] / "docs" / "runtimes.md"


def test_the_page_of_runtimes_is_current() -> None:
    """If this fails: python -m trafficmgr.cli.runtimes_page > docs/runtimes.md."""
    assert PAGE.read_text("utf-8") == page()


def test_the_page_names_every_behaviour_once() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    named = [line.split("`")[1] for line in rows]

    assert [name for name in named if name in BEHAVIOURS] == list(BEHAVIOURS)


def test_a_behaviour_is_given_everywhere_somewhere_or_nowhere() -> None:
    machines = [{"exec": "no door", "user": "one user"}, {"exec": "no key"}]

    assert answer(machines, "host_path") == "yes"
    assert answer(machines, "user") == "*depends*: one user"
    assert answer(machines, "exec") == "*no*: no door *or* no key"


def test_process_mode_has_the_same_gaps_on_every_machine_and_more_on_some(tmp_path: Path) -> None:
    best, *others = embedded(tmp_path)

    assert best == ALWAYS
    assert all(gaps.keys() > best.keys() for gaps in others)


def test_an_engine_on_a_good_machine_has_no_gap(tmp_path: Path) -> None:
    best, *others = docker(tmp_path)

    assert best == {}
    assert all("group_limits" in gaps for gaps in others)


def test_the_reasons_name_no_folder_of_the_machine_that_made_the_page(tmp_path: Path) -> None:
    machines = [*embedded(tmp_path), *docker(tmp_path), *docker(tmp_path, "podman")]

    assert not [why for gaps in machines for why in gaps.values() if str(tmp_path) in why]
