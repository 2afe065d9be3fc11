"""Every verb against the real API: what it prints, what it asks for, and how it exits."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin_support import ROLLOUTS, STATUS, FakeHouse, service
from support.cli_support import VALID_CONFIG, broken_config, invoke

from trafficmgr import __version__
from trafficmgr.cli import run
from trafficmgr.config.load import ConfigError, load
from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.supervisor import Spec

NOWHERE = {"TRAFFICMGR_STATE_DIR": "", "TRAFFICMGR_CONFIG": ""}


@pytest.fixture
def house() -> FakeHouse:
    return FakeHouse()


@pytest.fixture
def state_dir(house: FakeHouse, tmp_path: Path) -> Iterator[Path]:
    with service(house, tmp_path / "state"):
        yield tmp_path / "state"


# -- asking ---------------------------------------------------------------------------------------


def test_status_shows_every_endpoint(state_dir: Path) -> None:
    result = invoke("status", "--state-dir", state_dir)

    assert result.exit_code == 0
    assert "shop  progressing" in result.stdout
    assert "blog  serving" in result.stdout
    assert "\x1b" not in result.stdout, "colours in what is no terminal"


def test_status_of_one_endpoint_shows_only_that(state_dir: Path) -> None:
    result = invoke("status", "blog", "--state-dir", state_dir)

    assert "blog  serving" in result.stdout
    assert "shop" not in result.stdout


def test_status_of_an_endpoint_that_there_is_none_of_names_those_there_are(state_dir: Path) -> None:
    result = invoke("status", "shap", "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'There is no endpoint "shap". There are: blog, shop.\n'


def test_json_is_the_apis_own_data_as_one_document(state_dir: Path, house: FakeHouse) -> None:
    house.observe("GroupReady")
    place = ("--json", "--state-dir", state_dir)

    assert json.loads(invoke("status", *place).stdout) == STATUS
    assert json.loads(invoke("status", "blog", *place).stdout)["endpoints"] == [
        STATUS["endpoints"][1]
    ]
    assert json.loads(invoke("events", *place).stdout) == house.stored
    assert json.loads(invoke("rollouts", *place).stdout) == ROLLOUTS
    assert json.loads(invoke("logs", "shop-7", *place).stdout) == {
        "group": "shop-7",
        "lines": ["first", "second"],
    }
    assert json.loads(invoke("promote", "shop", *place).stdout) == {
        "says": "shop: promote is done."
    }


def test_watching_without_a_terminal_prints_once(state_dir: Path) -> None:
    result = invoke("status", "--watch", "--state-dir", state_dir)

    assert result.exit_code == 0
    assert result.stdout.count("shop  progressing") == 1


def test_events_shows_the_last_ones_of_an_endpoint(state_dir: Path, house: FakeHouse) -> None:
    house.observe("GroupStarted", "GroupReady")
    house.observe("Woke", endpoint="blog")
    house.observe("GroupEnded")

    result = invoke("events", "shop", "--limit", 2, "--state-dir", state_dir)

    lines = result.stdout.splitlines()
    assert [line.split()[4] for line in lines] == ["GroupReady", "GroupEnded"]


def test_events_leaves_checkpoints_out_unless_all_are_wanted(
    state_dir: Path, house: FakeHouse
) -> None:
    house.observe("GateJudged", "EvidenceKept")

    some = invoke("events", "--state-dir", state_dir)
    every = invoke("events", "--all", "--state-dir", state_dir)

    assert [line.split()[4] for line in some.stdout.splitlines()] == ["GateJudged"]
    assert [line.split()[4] for line in every.stdout.splitlines()] == ["GateJudged", "EvidenceKept"]


def test_rollouts_shows_how_they_went(state_dir: Path) -> None:
    result = invoke("rollouts", "shop", "--state-dir", state_dir)

    assert "0ld00000 → 6a1d0000  completed  took 1m 11s" in result.stdout


def test_logs_are_printed_byte_for_byte(state_dir: Path, house: FakeHouse) -> None:
    house.log = [b"caf\xe9 [bold]\x1b[31m\n", b"no newline at the end"]

    result = invoke("logs", "shop-7", "--state-dir", state_dir)

    assert result.stdout_bytes == b"caf\xe9 [bold]\x1b[31m\nno newline at the end"
    assert invoke("logs", "shop-7", "--tail", 0, "--state-dir", state_dir).stdout_bytes == b""


# -- orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", ["abort", "hold", "pause", "promote", "release", "resume", "retry", "rollback"]
)
def test_each_order_of_one_endpoint_asks_for_just_that(
    state_dir: Path, house: FakeHouse, verb: str
) -> None:
    place = ("--state-dir", state_dir)

    done = invoke(verb, "shop", *place)
    data = invoke(verb, "shop", "--json", *place)
    refused = invoke(verb, "blog", *place)

    assert (done.exit_code, done.stdout) == (0, f"shop: {verb} is done.\n")
    assert json.loads(data.stdout) == {"says": f"shop: {verb} is done."}
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"blog: {verb} is not possible now.\n"
    assert house.asked == [(verb, "shop")] * 2


def test_orders_reach_the_house_and_print_its_sentence(state_dir: Path, house: FakeHouse) -> None:
    promoted = invoke("promote", "shop", "--state-dir", state_dir)
    invoke("promote", "shop", "--full", "--state-dir", state_dir)
    invoke("scale", "shop", 3, "--state-dir", state_dir)
    stopped = invoke("stop", "--state-dir", state_dir)
    drained = invoke("stop", "--groups", "--state-dir", state_dir)

    assert promoted.stdout == "shop: promote is done.\n"
    assert stopped.stdout == "The service ends; the groups run on.\n"
    assert drained.stdout == "The service ends; the groups are drained.\n"
    assert house.asked == [
        ("promote", "shop"),
        ("promote --full", "shop"),
        ("scale", "shop", 3),
        ("stop", False),
        ("stop", True),
    ]


@pytest.mark.parametrize(
    "verb", ["pause", "resume", "abort", "rollback", "retry", "hold", "release"]
)
def test_every_plain_order_reaches_the_house(state_dir: Path, house: FakeHouse, verb: str) -> None:
    result = invoke(verb, "shop", "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (0, f"shop: {verb} is done.\n")
    assert house.asked == [(verb, "shop")]


@pytest.mark.parametrize("replicas", ["0", "1001", "two"])
def test_a_scale_that_makes_no_sense_is_a_usage_error(
    state_dir: Path, house: FakeHouse, replicas: str
) -> None:
    assert invoke("scale", "shop", replicas, "--state-dir", state_dir).exit_code == 2
    assert house.asked == []


def test_why_prints_a_sentence_a_line(state_dir: Path) -> None:
    result = invoke("why", "shop", "--state-dir", state_dir)

    assert result.stdout == "9f2c0000 waits.\nGroup shop-7 is not ready.\n"
    assert json.loads(invoke("why", "shop", "--json", "--state-dir", state_dir).stdout) == {
        "endpoint": "shop",
        "says": ["9f2c0000 waits.", "Group shop-7 is not ready."],
    }


def test_apply_sends_the_file_and_its_path(state_dir: Path, house: FakeHouse) -> None:
    file = state_dir.parent / "new.yaml"
    file.write_bytes(b"endpoints: \xff")

    result = invoke("apply", file, "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (0, "shop: ttl: 10s -> 5s.\n")
    assert house.asked == [("apply", file, b"endpoints: \xff")]


def test_plan_exits_1_if_apply_would_refuse(state_dir: Path, house: FakeHouse) -> None:
    file = state_dir.parent / "new.yaml"
    file.write_text("x")

    result = invoke("plan", file, "--state-dir", state_dir)

    assert (result.exit_code, result.stdout) == (1, "workers needs a restart.\n")
    assert result.stderr == f"{file} needs a restart; `apply` would change nothing.\n"
    assert house.asked == [("plan", file, b"x")]


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_file_with_mistakes_prints_them_all_and_exits_2(
    state_dir: Path, house: FakeHouse, verb: str
) -> None:
    file = state_dir.parent / "new.yaml"
    file.write_text(broken_config())
    with pytest.raises(ConfigError) as found:
        load(file)
    house.failure = found.value

    result = invoke(verb, file, "--state-dir", state_dir)

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"{found.value}\n")
    assert len(found.value.problems) == 3


def test_the_file_itself_says_which_service_gets_it(state_dir: Path, house: FakeHouse) -> None:
    file = state_dir.parent / "new.yaml"
    file.write_text("state_dir: ./state")

    assert invoke("apply", file, env=NOWHERE).exit_code == 0
    assert invoke("apply", file, env={**NOWHERE, "TRAFFICMGR_STATE_DIR": "/else"}).exit_code == 3
    assert len(house.asked) == 1


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_file_that_is_not_there_exits_2(state_dir: Path, house: FakeHouse, verb: str) -> None:
    result = invoke(verb, "none.yaml", "--state-dir", state_dir)

    assert result.exit_code == 2
    assert result.stderr.startswith("none.yaml: the file can't be read: No such file")
    assert house.asked == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("promote", "blog"), "blog: promote is not possible now."),
        (("abort", "a/b ä"), 'There is no endpoint "a/b ä".'),
        (("logs", "shop-99"), 'There is no group "shop-99".'),
    ],
)
def test_a_refusal_is_its_sentence_on_stderr_and_exit_1(
    state_dir: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = invoke(*arguments, "--state-dir", state_dir)

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", sentence + "\n")


def test_a_service_in_trouble_says_so_itself(state_dir: Path, house: FakeHouse) -> None:
    house.failure = TrafficmgrError("journal: the disk is full. Free some space.")

    result = invoke("events", "--state-dir", state_dir)

    assert (result.exit_code, result.stderr) == (1, "journal: the disk is full. Free some space.\n")


def test_logs_that_break_off_are_not_taken_for_all(state_dir: Path, house: FakeHouse) -> None:
    house.log_failure = TrafficmgrError("the file vanished")

    result = invoke("logs", "shop-7", "--state-dir", state_dir)

    assert result.exit_code == 1
    assert "second\n" in result.stdout
    assert "broke off its answer" in result.stderr


# -- configs --------------------------------------------------------------------------------------


def test_a_config_in_order_is_summed_up(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(VALID_CONFIG)

    result = invoke("validate", file)

    assert (result.exit_code, result.stdout) == (0, f"{file} is valid: 1 endpoint (shop).\n")
    assert json.loads(invoke("validate", file, "--json").stdout) == {
        "file": str(file),
        "is_valid": True,
        "endpoints": ["shop"],
    }


def test_a_bad_config_as_json_has_every_problem_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(broken_config())

    result = invoke("validate", file, "--json")

    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["is_valid"]) == (2, False)
    assert [problem["line"] for problem in answer["problems"]] == [4, 11, 13]


@pytest.mark.parametrize("verb", [("validate",), ("run", "-c"), ("status", "-c")])
def test_a_config_that_is_not_there_exits_2(tmp_path: Path, verb: tuple[str, ...]) -> None:
    result = invoke(*verb, tmp_path / "none.yaml")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.yaml: the file can't be read" in result.stderr


def test_run_hands_the_config_to_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(VALID_CONFIG)
    given: list[Spec] = []

    def supervise(spec: Spec) -> int:
        given.append(spec)
        return 7

    monkeypatch.setattr("trafficmgr.supervisor.run", supervise)
    result = invoke("run", "-c", file)

    assert result.exit_code == 7
    assert given == [run.spec_of(load(file))]


def test_the_supervisor_is_told_absolute_paths_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its children may be started again long after, from wherever it is by then."""
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(VALID_CONFIG)

    spec = run.spec_of(load(Path("shop.yaml")))

    state_dir = tmp_path / "here"
    assert (spec.state_dir, spec.slots, spec.backlog) == (state_dir, 2, 4096)
    assert (spec.dns, spec.http) == ((("127.0.0.1", 5300),), (("127.0.0.1", 8080),))
    assert spec.controller_argv[1:] == (
        "-m", "trafficmgr.service",
        "--config", str(tmp_path / "shop.yaml"), "--state-dir", str(state_dir),
    )  # fmt: skip
    assert spec.worker_argv[1:] == (
        "-m", "trafficmgr.dataplane.worker",
        "--state-dir", str(state_dir), "--link", str(state_dir / "run" / "link.sock"),
    )  # fmt: skip


def test_the_supervisor_is_told_where_tls_is_served(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    tls = "tls: {certificates: [{certificate: a.pem, key: a.key}]}\n"
    served = VALID_CONFIG.replace("listen:\n", 'listen:\n  https: ["127.0.0.1:8443"]\n')
    file.write_text(tls + served)

    assert run.spec_of(load(file)).https == (("127.0.0.1", 8443),)


def test_nothing_is_run_without_its_certificates(tmp_path: Path) -> None:
    """`validate` passes over what is not there: keys have no place where configs are checked."""
    file = tmp_path / "shop.yaml"
    tls = "tls: {certificates: [{certificate: a.pem, key: a.key}]}\n"
    served = VALID_CONFIG.replace("listen:\n", 'listen:\n  https: ["127.0.0.1:8443"]\n')
    file.write_text(tls + served)

    assert invoke("validate", file).exit_code == 0
    for verb in (("run", "-c"), ("doctor", "--config")):
        result = invoke(*verb, file)
        assert result.exit_code == 2
        assert "a.pem can't be read" in result.stderr


# -- the command itself ---------------------------------------------------------------------------


def test_the_version_is_printed() -> None:
    assert invoke("--version").stdout == f"trafficmgr {__version__}\n"


def test_a_verb_that_there_is_none_of_is_a_usage_error() -> None:
    assert invoke("statsu").exit_code == 2
