"""How rollouts are configured: steps, previews, the two strategies, and what a newer image does."""

from pathlib import Path

import pytest
from support.config_support import GOOD, changed, loaded, only_problem, pointed_at, with_lines

from trafficmgr.config.load import ConfigError, load
from trafficmgr.core.model import Step

FOUR_MISTAKES = """\
listen: {http: ["127.0.0.1:8080"]}
endpoints:
  shop:
    hosts: [shop.apps.test]
    rollout: {strategy: blue-green, steps: [{weight: 5, hold: 1s}]}
    group:
      containers: [{name: web, image: shop/web, ports: [8080]}]
  api:
    hosts: [preview.shop.apps.test]
    rollout: {steps: [{weight: 5}], preview: {}}
    group:
      containers: [{name: api, image: shop/api, ports: [8080]}]
"""

FOUR_SENTENCES = """\
shop.yaml:5:44: "steps" of "rollout" of endpoint "shop" has no place in blue-green, which moves \
all traffic at once
  5 |     rollout: {strategy: blue-green, steps: [{weight: 5, hold: 1s}]}
    |                                            ^^^^^^^^^^^^^^^^^^^^^^^ remove it; preview: \
{hold: 30s} looks at the new revision before that
shop.yaml:9:13: host "preview.shop.apps.test" of endpoint "api" is the name at which a new \
revision of "shop" is previewed
  9 |     hosts: [preview.shop.apps.test]
    |             ^^^^^^^^^^^^^^^^^^^^^^ give it a name other than preview.shop.apps.test
shop.yaml:10:23: item 1 of "steps" of "rollout" of endpoint "api" has no "hold"
  10 |     rollout: {steps: [{weight: 5}], preview: {}}
     |                       ^^^^^^^^^^^ add hold: 10s, or pause: true to wait for \
`trafficmgr promote`
shop.yaml:10:46: "preview" of "rollout" of endpoint "api" has no "hold"
  10 |     rollout: {steps: [{weight: 5}], preview: {}}
     |                                              ^^ add hold: 10s, or pause: true to wait for \
`trafficmgr promote`"""


def in_endpoint(line: str) -> str:
    return with_lines(line, after="hosts: [shop.apps.test]")


def test_mistakes_are_shown_together_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(FOUR_MISTAKES)

    with pytest.raises(ConfigError) as caught:
        load(Path("shop.yaml"))

    assert str(caught.value) == FOUR_SENTENCES


@pytest.mark.parametrize(
    ("steps", "pointed", "sentence", "hint"),
    [
        ("[]", "[]", "is empty", "write "),
        ("[{weight: 100, hold: 1s}]", "100", "is 100", "100 comes by itself"),
        ("[{weight: -1, hold: 1s}]", "-1", "is not a weight", "1 to 99, or 0 for a preview"),
        ("[{weight: no, hold: 1s}]", "no", "is not a weight", "1 to 99"),
        ("[{weight: 5, hold: 1s}, {weight: 0, pause: true}]", "0", "is 0, which", "first step"),
        ("[{weight: 0, hold: 1s}, {weight: 0, hold: 2s}]", "0", "is 0, which", "first step"),
        ("[{weight: 10%, hold: 1s}]", "10%", "is not a weight", "1 to 99"),
        ("[{weight: 9, hold: 1s}, {weight: 9, hold: 1s}]", "9", "is not more than the 9", "rise"),
        ("[{weight: 9}]", "{weight: 9}", 'has no "hold"', "add hold: 10s, or pause: true"),
        ("[{weight: 9, pause: no}]", "{weight: 9, pause: no}", 'has no "hold"', "add hold: 10s"),
        ("[{weight: 9, pause: 1}]", "1", "is neither true nor false", "write true or false"),
        ("[{weight: 9, hold: 1s, deadline: 0s}]", "0s", "is zero", "at least 1ms"),
    ],
)
def test_steps_rise_and_stop_below_100(
    tmp_path: Path, steps: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_endpoint(f"rollout: {{steps: {steps}}}"))

    assert pointed_at(problem) == pointed
    assert sentence in problem.text
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("rollout", "pointed", "problem", "hint"),
    [
        (
            "{strategy: blue-green, steps: [{weight: 5, hold: 1s}]}",
            "[{weight: 5, hold: 1s}]",
            "has no place in blue-green, which moves all traffic at once",
            "remove it; preview: {hold: 30s} looks at the new revision before that",
        ),
        (
            "{preview: {hold: 1s}}",
            "{hold: 1s}",
            "belongs to blue-green",
            "write strategy: blue-green, or begin the steps with {weight: 0, hold: 30s}",
        ),
        (
            "{strategy: blue-green, preview: {}}",
            "{}",
            'has no "hold"',
            "add hold: 10s, or pause: true to wait for `trafficmgr promote`",
        ),
        (
            "{strategy: blue-green, preview: {weight: 5, hold: 1s}}",
            "weight",
            'unknown key "weight" in "preview" of "rollout" of endpoint "shop"',
            'did you mean "weight"? it belongs to a step',
        ),
        (
            "{strategy: bluegreen}",
            "bluegreen",
            "is not a word that it takes",
            "write canary or blue-green",
        ),
        (
            "{candidate_replicas: 2}",
            "2",
            "is not a word that it takes",
            "write full or scaled",
        ),
        (
            "{on_newer: wait}",
            "wait",
            "is not a word that it takes",
            "write supersede, queue or ignore",
        ),
    ],
)
def test_each_strategy_has_its_own_words(
    tmp_path: Path, rollout: str, pointed: str, problem: str, hint: str
) -> None:
    found = only_problem(tmp_path, in_endpoint(f"rollout: {rollout}"))

    assert found.text.endswith(problem)
    assert pointed_at(found) == pointed
    assert found.hint.startswith(hint)


def test_on_newer_belongs_to_the_rollout(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, in_endpoint("update: {on_newer: queue}"))

    assert problem.hint == 'did you mean "on_newer"? it belongs to "rollout"'


def test_canary_may_begin_with_a_preview(tmp_path: Path) -> None:
    steps = "[{weight: 0, pause: true}, {weight: 10, hold: 5s}]"

    found = loaded(tmp_path, in_endpoint(f"rollout: {{steps: {steps}}}"))

    assert found.endpoints["shop"].settings.steps == (
        Step(weight_pct=0, hold_s=0, pause=True),
        Step(weight_pct=10, hold_s=5),
    )


@pytest.mark.parametrize(
    ("preview", "steps"),
    [
        ("", ()),
        (", preview: {hold: 30s}", (Step(weight_pct=0, hold_s=30),)),
        (", preview: {pause: true}", (Step(weight_pct=0, hold_s=0, pause=True),)),
        (", preview: {hold: 5s, pause: true}", (Step(weight_pct=0, hold_s=5, pause=True),)),
    ],
)
def test_blue_green_is_a_preview_and_then_everything(
    tmp_path: Path, preview: str, steps: tuple[Step, ...]
) -> None:
    text = changed(("    hosts:", f"    rollout: {{strategy: blue-green{preview}}}\n    hosts:"))

    assert loaded(tmp_path, text).endpoints["shop"].settings.steps == steps


def test_no_host_is_named_like_the_preview_of_another(tmp_path: Path) -> None:
    other = GOOD.partition("endpoints:\n")[2].replace("  shop:", "  api:")
    other = other.replace("[shop.apps.test]", "[api.apps.test, Preview.Shop.apps.test]")

    problem = only_problem(tmp_path, GOOD + other)

    assert problem.text == (
        'host "preview.shop.apps.test" of endpoint "api" is the name at which a new revision of'
        ' "shop" is previewed'
    )
    assert pointed_at(problem) == "Preview.Shop.apps.test"
    assert problem.hint == "give it a name other than preview.shop.apps.test"


def test_not_even_within_one_endpoint(tmp_path: Path) -> None:
    both = changed(("[shop.apps.test]", "[preview.shop.apps.test, shop.apps.test]"))

    assert pointed_at(only_problem(tmp_path, both)) == "preview.shop.apps.test"


def test_a_host_may_be_called_preview_of_nobody(tmp_path: Path) -> None:
    assert loaded(tmp_path, changed(("[shop.apps", "[preview.apps"))).endpoints
