"""How answers look."""

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType
from support.admin_support import NEW, OLD, ROLLOUTS, STATUS

from trafficmgr.cli import show
from trafficmgr.cli.words import bar, brief, number, share, span


def _text(renderable: RenderableType, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_a_status_reads_like_this() -> None:
    """The whole picture, so that a change of any line is seen in review."""
    assert (
        _text(show.status(STATUS))
        == """\
trafficmgr 0.1.0  pid 4711  up 3m 12s  state /srv/state
workers 1 of 2  slot 1 is absent: nothing retires  dns 127.0.0.1:5300  http 127.0.0.1:8080

shop  progressing  shop.apps.test  publish proxy  table 7
  9f2c0000 gets 10 % and holds for 12 s more.
  rollout 6a1d0000 → 9f2c0000  step 1 of 3 at 10 %  hold 12s left  deadline in 9m 40s
  REVISION  ROLE       WEIGHT              OBSERVED  READY  REQUESTS  FAILED
  6a1d0000  stable     ███████████░  90 %    89.7 %    3/3    12 034       0
  9f2c0000  candidate  █░░░░░░░░░░░  10 %         -    2/3     1 201       4
  GROUP   REVISION  ADDRESS     STATE    READY  NOTE
  shop-7  9f2c0000  127.77.0.7  started  no     probe [/healthz] answered 500
  shop-2  0ld00000  127.77.0.2  started  yes    the TTL, 4 s left
                                                2 requests
  image registry.test/shop abababab, checked 4.2s ago
  quarantined bad00000: it never became ready

blog  serving  blog.apps.test  publish groups  table 2
  ALARM: no target is ready
  image registry.test/blog: the registry answered 404 (for 2m 5s)"""
    )


UNPROVEN = {
    "name": "shop",
    "phase": "paused",
    "says": "9f2c0000 was paused by itself with 10 % of traffic; it waits for an answer.",
    "rollout": {
        "from": OLD,
        "to": NEW,
        "step": 1,
        "steps": 3,
        "weight_pct": 10,
        "hold_left_s": 0.0,
        "patience_left_s": 1680.0,
        "question": "Traffic would have gone back [red], because gate compare failed.",
        "gates": [
            {"gate": "max_error_rate", "kind": "pass", "why": "0.2 %", "numbers": {"failed": 1.0}},
            {
                "gate": "compare",
                "kind": "fail",
                "why": "83 of 412 failed",
                "numbers": {"e": 3821.25, "finished": 412.0},
            },
            {"gate": "report", "kind": "insufficient", "why": "nothing was seen yet"},
        ],
        "hooks": [
            {
                "name": "migrate",
                "stage": "before",
                "phase": "succeeded",
                "group": "shop-6",
                "seconds": 12.0,
                "is_reversible": False,
                "note": "exit code 0",
            },
            {"name": "announce", "stage": "after", "phase": "waiting", "is_reversible": True},
        ],
        "smoke": {"phase": "passed", "leg": 3, "legs": 3, "host": "preview.shop.test"},
    },
    "groups": [{"id": "shop-6", "state": "started", "ready": True, "hook": "migrate"}],
}


def test_what_a_revision_has_to_prove_reads_like_this() -> None:
    assert (
        _text(show.endpoint(UNPROVEN))
        == """\
shop  paused    publish -  table -
  9f2c0000 was paused by itself with 10 % of traffic; it waits for an answer.
  ASKS: Traffic would have gone back [red], because gate compare failed.
  rollout 6a1d0000 → 9f2c0000  step 1 of 3 at 10 %  waits 28m at most for its gates
  GATE            VERDICT         WHY
  max_error_rate  ✓ pass          0.2 %
  compare         ✗ fail          83 of 412 failed
  report          ? insufficient  nothing was seen yet
  HOOK      WHEN    STATE      TOOK  GROUP   NOTE
  migrate   before  succeeded   12s  shop-6  exit code 0 (reversible: false)
  announce  after   waiting       -  -
  smoke passed  leg 3 of 3  preview.shop.test
  GROUP   REVISION  ADDRESS  STATE    READY  NOTE
  shop-6  -         -        started  -      the task of hook migrate, no replica"""
    )


def test_a_pause_by_itself_stands_out_in_the_history() -> None:
    asking = {"endpoint": "shop", "id": "shop-r3", "question": "Hook migrate has begun."}

    assert "ASKS: Hook migrate has begun." in _text(show.rollouts([asking]))


@pytest.mark.parametrize("data", [{}, {"endpoints": [{}]}, {"service": {"slots": [{}]}}])
def test_a_status_of_another_version_is_shown_as_far_as_it_goes(data: dict[str, Any]) -> None:
    assert _text(show.status(data)).startswith("trafficmgr")


def test_every_part_bears_missing_keys() -> None:
    empty: dict[str, Any] = {
        "weights": [{}],
        "groups": [{}],
        "rollout": {"id": "r-1", "gates": [{}], "hooks": [{}], "smoke": {"host": ""}},
        "registry": [{}],
        "quarantined": [{}],
    }

    text = _text(show.endpoint(empty))

    assert "rollout - → -" in text
    assert "image - not seen yet" in text
    assert "? insufficient" in text
    assert "smoke -" in text
    assert "None" not in text


def test_counts_that_say_something_get_a_column() -> None:
    quiet = {"weights": [{"revision": OLD, "dns_answers": 0, "errors_5xx": 0, "spilled": 0}]}
    loud = {"weights": [*quiet["weights"], {"dns_answers": 1500, "errors_5xx": 2}]}

    assert "DNS" not in _text(show.weights(quiet))
    assert "5XX" not in _text(show.weights(quiet))
    assert _text(show.weights(loud)).split()[6:9] == ["DNS", "5XX", "FAILED"]
    assert "1 500" in _text(show.weights(loud))


def test_what_keeps_the_service_from_deciding_stands_at_its_top() -> None:
    text = _text(show.status({"service": {"trouble": "the disk is full", "is_stopping": True}}))

    assert "stopping" in text.splitlines()[0]
    assert text.splitlines()[2] == "TROUBLE: the disk is full"


def test_it_fits_a_terminal_of_80_columns() -> None:
    weights = STATUS["endpoints"][0]

    assert _text(show.weights(weights), width=78) == _text(show.weights(weights), width=200)


def test_no_endpoints_is_said() -> None:
    assert _text(show.status({"endpoints": []})).endswith("There are no endpoints.")


def test_roles_are_found_whether_ids_are_whole_or_short() -> None:
    data = {"stable": OLD[:8], "candidate": NEW, "weights": [{"revision": OLD}, {"revision": NEW}]}

    text = _text(show.weights(data))

    assert f"{OLD[:8]}  stable" in text
    assert f"{NEW[:8]}  candidate" in text


def test_texts_are_no_markup() -> None:
    reason = "[red]listen[/red] on [::]:80 failed :warning:"

    assert reason in _text(show.endpoint({"says": reason, "groups": [{"note": reason}]}))


def test_an_event_says_what_and_when_and_shortens_hashes() -> None:
    event = {
        "seq": 12,
        "wall": "2031-02-03T04:05:06.789+00:00",
        "endpoint": "",
        "kind": "RevisionSeen",
        "event": {
            "event": "RevisionSeen",
            "at": 12.5,
            "endpoint": "shop",
            "revision": {"id": "9f" * 32, "template": {"containers": []}},
            "settings": {"name": "shop"},
            "slots": [0, 1],
            "is_clean": False,
            "reason": "",
        },
    }

    assert _text(show.event(event)) == (
        "    12 2031-02-03 04:05:06Z (all)        RevisionSeen"
        " revision=9f9f9f9f slots=0,1 is_clean=false"
    )


def test_a_verdict_among_the_events_says_whose_it_is_and_why() -> None:
    verdict = {"gate": "compare", "kind": "fail", "at": 1.5, "why": "83 of 412 failed"}
    event = {
        "seq": 7,
        "wall": "2031-02-03T04:05:06.789+00:00",
        "endpoint": "shop",
        "kind": "GateJudged",
        "event": {"event": "GateJudged", "rollout": "shop-r2", "stage": 0, "verdict": verdict},
    }

    assert _text(show.event(event)) == (
        "     7 2031-02-03 04:05:06Z shop         GateJudged"
        " rollout=shop-r2 stage=0 verdict=compare fail (83 of 412 failed)"
    )


def test_rollouts_read_like_this() -> None:
    under_way = {"endpoint": "shop", "from": OLD, "to": NEW, "outcome": None, "seconds": 4.25}

    assert (
        _text(show.rollouts([*ROLLOUTS, under_way]))
        == """\
shop r-2  0ld00000 → 6a1d0000  completed  took 1m 11s, started 1h 1m ago
  +2.5s  step  10 %
shop  6a1d0000 → 9f2c0000  under way  took 4.2s, started - ago"""
    )
    assert _text(show.rollouts([])) == "There were no rollouts yet."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (-1, "0.0s"), (0.04, "0.0s"), (9.94, "9.9s"), (12.4, "12s"), (60, "1m"),
        (192.4, "3m 12s"), (3600, "1h"), (7500, "2h 5m"), (273_600, "3d 4h"), (86_460, "1d"),
    ],
)  # fmt: skip
def test_spans(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_a_bar_is_empty_for_exactly_0_and_full_for_exactly_100() -> None:
    assert bar(0, 10) == "░" * 10
    assert bar(1, 10) == "█" + "░" * 9
    assert bar(50, 10) == "█" * 5 + "░" * 5
    assert bar(99, 10) == "█" * 9 + "░"
    assert bar(100, 10) == "█" * 10


def test_numbers_and_shares() -> None:
    assert (number(None), number(999), number(1_234_567)) == ("-", "999", "1 234 567")
    assert (share(None), share(10), share(9.96), share(0.04)) == ("-", "10 %", "10 %", "0 %")


def test_what_cannot_be_said_briefly_is_left_out() -> None:
    assert brief({"a": 1}) is None
    assert brief([{"a": 1}]) is None
    assert brief(None) is None
    assert brief(1.25) == "1.25"
    assert brief("sha256:" + "ab" * 32) == "abababab"
