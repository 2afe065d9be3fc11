"""`show`, `stats` and the options of `logs`: how groups look from inside."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from support.admin_support import SHOWN, STATS, FakeHouse, service
from support.cli_support import invoke

from trafficmgr.cli import show_groups
from trafficmgr.cli.words import size
from trafficmgr.runtimes.contract import LogQuery


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
def state_dir(house: FakeHouse, tmp_path: Path) -> Iterator[Path]:
    with service(house, tmp_path / "state"):
        yield tmp_path / "state"


def _text(renderable: RenderableType, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


# -- show -----------------------------------------------------------------------------------------


def test_groups_read_like_this() -> None:
    """The whole picture, so that a change of any line is seen in review."""
    assert (
        _text(show_groups.groups(SHOWN))
        == """\
shop  serving  shop.apps.test
  Revision 9f2c0000 serves with 1 of 1 groups ready.

shop-7  9f2c0000  127.77.0.7:80  started  ready  restart Always
  limits of the group: cpu 1, memory 512.0 MiB
  previous shop-4 ended at 2031-02-03 04:04:59Z: exit code 3
  CONTAINER     STATE       REASON     EXIT  RESTARTS  SINCE
  fetch (init)  Terminated  Completed     0         2  2031-02-03 04:05:02Z
  web           Running     -             -         2  2031-02-03 04:05:02Z
  fetch: image registry.test/fetch:stable cdcdcdcd
  web: image registry.test/shop:stable abababab
  web: ports 80
  web: memory 64.0 MiB
  web: user 1000:1000
  web: command serve --all
  web: mount /keys from keys read-only
  web: env A=(hidden)
  web: env TOKEN=(secret token)
  web: readiness http :80/healthz, every 1s, timeout 5s, rise 2, fall 3
  web: pre_stop exec sync
  volume keys: secret tls.key from secret token
  volume shared: empty_dir of 1.0 KiB
  volume data: host_path /srv/data
  FIRST                 LAST                  COUNT  EVENT      WHY
  2031-02-03 04:05:03Z  2031-02-03 04:06:03Z     12  Unhealthy  GET /healthz answered 503"""
    )


def test_an_engine_that_is_away_stands_at_the_top() -> None:
    text = _text(show_groups.groups({"endpoint": "shop", "trouble": "the engine is away"}))

    assert "TROUBLE: the engine is away" in text
    assert text.endswith("There are no groups.")


def test_the_task_of_a_hook_is_no_replica() -> None:
    task = {"id": "shop-8", "state": "started", "ready": False, "hook": "migrate"}

    text = _text(show_groups.groups({"groups": [task]}))

    assert "shop-8  -  -:-  started  the task of hook migrate  restart -" in text
    assert "not ready" not in text


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"groups": [{}]},
        {
            "groups": [
                {"containers": [{}], "volumes": [{}], "events": [{}], "previous": {"at": None}}
            ]
        },
    ],
)
def test_groups_of_another_version_are_shown_as_far_as_they_go(data: dict[str, Any]) -> None:
    text = _text(show_groups.groups(data))

    assert text.startswith("-  -")
    assert "None" not in text


def test_show_is_of_an_endpoint_or_one_group(state_dir: Path) -> None:
    place = ("--state-dir", state_dir)

    assert "shop-7  9f2c0000" in invoke("show", "shop", *place).stdout
    assert "There are no groups." in invoke("show", "shop", "shop-8", *place).stdout
    assert json.loads(invoke("show", "shop", "--json", *place).stdout) == SHOWN
    assert invoke("show", "nobody", *place).exit_code == 1


# -- stats ----------------------------------------------------------------------------------------


def test_stats_read_like_this() -> None:
    assert (
        _text(show_groups.stats(STATS))
        == """\
GROUP   REVISION  CONTAINER     CPU   MEMORY  RECEIVED  SENT
shop-7  9f2c0000  web        1.25 s  3.0 MiB   1.5 KiB     -
shop-8: It is gone."""
    )
    assert _text(show_groups.stats({})) == "No group runs."


def test_stats_are_of_an_endpoint_or_one_group(state_dir: Path) -> None:
    place = ("--state-dir", state_dir)

    assert "shop-7  9f2c0000  web" in invoke("stats", "shop", *place).stdout
    assert "shop-7" not in invoke("stats", "shop", "shop-8", *place).stdout
    assert json.loads(invoke("stats", "shop", "--json", *place).stdout) == STATS


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**40, "5120.0 GiB")],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


# -- logs -----------------------------------------------------------------------------------------


def test_the_options_of_logs_reach_the_service(state_dir: Path, house: FakeHouse) -> None:
    options = ("-c", "web", "--since", "1h30m", "--tail", 1, "--timestamps", "--previous")

    result = invoke("logs", "shop-7", *options, "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (0, "second\n")
    wanted = LogQuery(container="web", tail=1, has_timestamps=True)
    assert house.groups.queries == [(wanted, 5400.0, True)]


@pytest.mark.parametrize(
    ("since", "sentence"), [("5", "has no unit"), ("soon", "is not a duration")]
)
def test_a_time_that_is_none_is_a_usage_error(state_dir: Path, since: str, sentence: str) -> None:
    result = invoke("logs", "shop-7", "--since", since, "--state-dir", state_dir)

    assert result.exit_code == 2
    assert f"--since {since!r} {sentence}" in result.stderr
