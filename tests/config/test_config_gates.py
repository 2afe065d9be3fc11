"""Gates, hooks, smoke and affinity: what they mean, and what is refused in which words."""

from pathlib import Path

import pytest
from support.config_support import (
    GOOD,
    loaded,
    only_problem,
    pointed_at,
    problems_of,
    with_lines,
)

from trafficmgr.config.load import ConfigError, load
from trafficmgr.config.shape_gates import TRAFFIC_GATES
from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    Compare,
    Gates,
    Hook,
    HookStage,
    HttpCall,
    JsonCheck,
    OnInsufficient,
    ProbeCheck,
    Smoke,
    SmokeRequest,
    TaskCommand,
)
from trafficmgr.core.model import Affinity, EndpointSettings
from trafficmgr.core.template import ExecCheck, HttpCheck, TcpCheck, revision_id

FOLDER = Path(__file__).parents[2] / "config"

WHOLE = """\
listen: {http: ["127.0.0.1:8080"]}
endpoints:
  shop:
    hosts: [shop.apps.test]
    port: 8080
    affinity: client
    group:
      containers:
        - {name: web, image: shop/web, ports: [8080, 9090]}
        - {name: api, image: shop/api}
    rollout:
      steps: [{weight: 10, hold: 1m}, {weight: 50, pause: true, hold: 1h}]
      gates:
        max_error_rate: 0.5%
        max_p50: 10ms
        max_p95: 20ms
        max_p99: 30ms
        min_requests: 7
        compare: {alpha: 0.02, catch: 3%}
        checks:
          - name: rate
            http: {url: "http://127.0.0.1:9090/q", json: a.0, at_least: -1, at_most: 2.5}
            every: 1s
            timeout: 2s
            fall: 3
          - {name: up, http: {url: "https://up.apps.test"}}
          - {name: here, command: [./check.sh, ./not-a-path]}
          - {name: path, command: [check]}
          - {name: root, command: [/usr/bin/check]}
          - {name: deep, probe: {http: {path: /deep}}}
          - {name: other, probe: {http: {port: 9090}}}
          - {name: open, probe: {tcp: {}}}
          - {name: open-too, probe: {tcp: {port: 1}}}
          - {name: inside, probe: {exec: {command: [a, b]}, container: api}}
        max_hold: 1m
        on_insufficient: abort
      hooks:
        after: [{name: last, http: {url: "http://127.0.0.1/", method: GET}, timeout: 1s}]
        gate: [{name: third, http: {url: "http://127.0.0.1/"}, reversible: false}]
        before:
          - {name: first, command: [a, b], container: api, timeout: 2s, reversible: false}
          - {name: second, command: [c], container: web}
      smoke:
        requests: [{path: /a, status: 404, body: "^b"}, {}]
        timeout: 3s
        rehearse: true
"""

CHECKS = (
    Check(
        name="rate",
        ask=JsonCheck(url="http://127.0.0.1:9090/q", path="a.0", at_least=-1, at_most=2.5),
        every_s=1,
        timeout_s=2,
        fall=3,
    ),
    Check(name="up", ask=JsonCheck(url="https://up.apps.test")),
    Check(name="here", ask=CommandCheck(command=("{folder}/check.sh", "./not-a-path"))),
    Check(name="path", ask=CommandCheck(command=("check",))),
    Check(name="root", ask=CommandCheck(command=("/usr/bin/check",))),
    Check(name="deep", ask=ProbeCheck(check=HttpCheck(port=8080, path="/deep"))),
    Check(name="other", ask=ProbeCheck(check=HttpCheck(port=9090))),
    Check(name="open", ask=ProbeCheck(check=TcpCheck(port=8080))),
    Check(name="open-too", ask=ProbeCheck(check=TcpCheck(port=1))),
    Check(name="inside", ask=ProbeCheck(check=ExecCheck(command=("a", "b")), container="api")),
)
GATES = Gates(
    max_error_rate=0.005,
    max_p50_s=0.01,
    max_p95_s=0.02,
    max_p99_s=0.03,
    min_requests=7,
    compare=Compare(alpha=0.02, catch=0.03, has_latency=False),
    max_hold_s=60,
    on_insufficient=OnInsufficient.abort,
)
HOOKS = (
    Hook(
        name="first",
        stage=HookStage.before,
        action=TaskCommand(container="api", command=("a", "b")),
        timeout_s=2,
        is_reversible=False,
    ),
    Hook(
        name="second",
        stage=HookStage.before,
        action=TaskCommand(container="web", command=("c",)),
    ),
    Hook(
        name="third",
        stage=HookStage.gate,
        action=HttpCall(url="http://127.0.0.1/"),
        is_reversible=False,
    ),
    Hook(
        name="last",
        stage=HookStage.after,
        action=HttpCall(url="http://127.0.0.1/", method="GET"),
        timeout_s=1,
    ),
)
SMOKE = Smoke(
    requests=(SmokeRequest(path="/a", status=404, body="^b"), SmokeRequest()),
    timeout_s=3,
    is_rehearsed=True,
)
"""What WHOLE means."""


def in_endpoint(*lines: str) -> str:
    return with_lines(*lines, after="hosts: [shop.apps.test]")


def in_rollout(line: str, *more: str) -> str:
    return in_endpoint(f"rollout: {{{line}}}", *more)


def in_gates(line: str, *more: str) -> str:
    return in_rollout(f"gates: {{{line}}}", *more)


def with_check(line: str) -> str:
    return in_gates(f"checks: [{{name: a, {line}}}]")


def with_hook(line: str, stage: str = "before") -> str:
    return in_rollout(f"hooks: {{{stage}: [{{name: a, {line}}}]}}")


def beside(text: str) -> str:
    """Return the text with a second container."""
    return f"{text}        - {{name: monitor, image: shop/monitor}}\n"


def settings_of(folder: Path, text: str) -> EndpointSettings:
    (endpoint,) = loaded(folder, text).endpoints.values()
    return endpoint.settings


# -- what it means --------------------------------------------------------------------------------


def test_every_key_of_what_a_revision_must_prove_reaches_the_core(tmp_path: Path) -> None:
    """Each value differs from its default, so that a forgotten or crossed key shows."""
    found = settings_of(tmp_path, WHOLE)

    here = CommandCheck(command=(f"{tmp_path}/check.sh", "./not-a-path"))
    checks = tuple(one.but(ask=here) if one.name == "here" else one for one in CHECKS)
    assert found.affinity is Affinity.client
    assert found.gates.checks == checks
    assert found.gates.but(checks=()) == GATES
    assert found.hooks == HOOKS
    assert found.smoke == SMOKE


def test_nothing_is_asked_of_a_revision_unless_it_is_written(tmp_path: Path) -> None:
    plain = settings_of(tmp_path, GOOD)
    empty = settings_of(tmp_path, in_rollout("gates: {}, hooks: {}"))

    assert (plain.gates, plain.hooks, plain.smoke) == (Gates(), (), None)
    assert plain.affinity is Affinity.none
    assert not plain.gates.names(10)
    assert empty == plain


def test_what_a_revision_must_prove_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    with_all = settings_of(tmp_path, WHOLE)
    without = settings_of(
        tmp_path, WHOLE.partition("    rollout:")[0].replace("    affinity: client\n", "")
    )

    assert without.gates == Gates()
    assert revision_id(with_all.template, ()) == revision_id(without.template, ())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", Compare()),
        ("{}", Compare()),
        ("{alpha: 0.02}", Compare(alpha=0.02)),
        ("{latency: false}", Compare(has_latency=False)),
        ("false", None),
    ],
)
def test_a_comparison_may_be_switched_on_alone(
    tmp_path: Path, written: str, meant: Compare | None
) -> None:
    assert settings_of(tmp_path, in_gates(f"compare: {written}")).gates.compare == meant


@pytest.mark.parametrize("written", ["true", "{}", "{latency: false}"])
def test_a_comparison_of_clients_has_no_latency(tmp_path: Path, written: str) -> None:
    text = in_gates(f"compare: {written}", "affinity: client")

    assert settings_of(tmp_path, text).gates.compare == Compare(has_latency=False)


@pytest.mark.parametrize("written", ["1%", '"1 %"', "0.01", '"0.01"'])
def test_a_share_is_per_cent_or_a_part_of_one(tmp_path: Path, written: str) -> None:
    gates = settings_of(tmp_path, in_gates(f"max_error_rate: {written}")).gates

    assert gates == Gates(max_error_rate=0.01)


def test_a_command_runs_in_the_only_container_unless_it_is_told_another(tmp_path: Path) -> None:
    hook = settings_of(tmp_path, with_hook("command: [./migrate]")).hooks[0]
    check = settings_of(tmp_path, with_check("probe: {exec: {command: [a]}}")).gates.checks[0]

    assert hook.action == TaskCommand(container="web", command=("./migrate",))
    assert check.ask == ProbeCheck(check=ExecCheck(command=("a",)), container="web")


def test_smoke_may_be_asked_for_without_a_word(tmp_path: Path) -> None:
    assert settings_of(tmp_path, in_rollout("smoke: {}")).smoke == Smoke()


@pytest.mark.parametrize(
    "rollout",
    [
        "strategy: blue-green, gates: {compare: true}",
        "strategy: blue-green, preview: {hold: 2h}, gates: {compare: true}",
        "strategy: blue-green, preview: {pause: true}, gates: {checks: [{name: a, command: [a]}]}",
        "steps: [{weight: 9, pause: true, hold: 9h}], gates: {compare: true}",
        "steps: [{weight: 0, hold: 9h}, {weight: 9, hold: 30m}], gates: {compare: true}",
        "steps: [{weight: 9, hold: 9h}]",
    ],
)
def test_gates_take_what_steps_there_are(tmp_path: Path, rollout: str) -> None:
    """One that waits for `promote` has no hold; a preview has no traffic; no gate needs no time."""
    assert settings_of(tmp_path, in_rollout(rollout)).name == "shop"


def test_where_no_traffic_is_seen_the_world_can_be_asked(tmp_path: Path) -> None:
    text = in_rollout(
        "gates: {checks: [{name: a, probe: {tcp: {}}}]}, smoke: {}", "publish: groups"
    )

    assert settings_of(tmp_path, text).gates.names(50) == ("a",)


def test_the_keys_that_judge_our_own_traffic_are_the_names_of_their_gates() -> None:
    assert GATES.on_traffic() == TRAFFIC_GATES


def test_the_reference_shows_each_kind_of_gate_and_hook() -> None:
    found = load(FOLDER / "example.yaml").endpoints["shop"].settings

    assert found.gates.names(50) == (*TRAFFIC_GATES, "budget", "report", "deep", "disk")
    assert found.gates.compare == Compare()
    assert found.gates.checks[0] == Check(
        name="budget",
        ask=JsonCheck(
            url="http://127.0.0.1:9090/api/v1/query?query=slo:burn_rate:5m",
            path="data.result.0.value.1",
            at_least=0,
            at_most=1.5,
        ),
        fall=2,
    )
    assert [hook.name for hook in found.hooks] == ["migrate", "announce", "approve", "tidy"]
    assert found.hooks[0].is_reversible is False
    assert found.smoke == Smoke(
        requests=(
            SmokeRequest(path="/shop"),
            SmokeRequest(path="/cart?item=1", body=r"Your cart \([0-9]+\)"),
        ),
        is_rehearsed=True,
    )


# -- values and keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gates", "pointed", "sentence", "hint"),
    [
        ("max_error_rate: 0", "0", "is zero", "write more than 0"),
        ("max_error_rate: 1", "1", "is all there is, or more", "write 1% for per cent"),
        ("max_error_rate: 100%", "100%", "is all there is, or more", "write less than 100%"),
        ("max_error_rate: few", "few", "is not a share", "such as 1%"),
        ("max_p50: 100", "100", "has no unit", "write 100s"),
        ("max_p50: 0s", "0s", "is zero", "at least 1ms"),
        ("max_p95: 61s", "61s", "is more than 1m, above which", "write 1m or less"),
        ("max_p50: 2s, max_p95: 1s", "1s", "is less than max_p50", "write 2s or more"),
        ("max_p50: 2s, max_p99: 1s", "1s", "is less than max_p50", "write 2s or more"),
        ("min_requests: 0", "0", "is too small", "the smallest is 1"),
        ("min_requests: many", "many", "is not a whole number", "write 100"),
        ("compare: 5", "5", "is not a mapping", "write true"),
        ("compare: {alpha: 60%}", "60%", "would condemn more than half", "write 1%"),
        ("compare: {alpha: 0}", "0", "is zero", "write more than 0"),
        ("compare: {catch: 100%}", "100%", "is all there is, or more", "less than 100%"),
        ("compare: {latency: 1}", "1", "is neither true nor false", "write true or false"),
        ("compare: true, max_hold: 0s", "0s", "is zero", "at least 1ms"),
        (
            "compare: true, on_insufficient: fail",
            "fail",
            "is not a word",
            "promote, abort or pause",
        ),
        ("checks: {}", "{}", "is not a list", "write [{"),
    ],
)
def test_a_gate_that_cannot_be_meant_says_what_to_write(
    tmp_path: Path, gates: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_gates(gates))

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


URL = 'url: "http://x/"'


@pytest.mark.parametrize(
    ("check", "pointed", "sentence", "hint"),
    [
        ("fall: 2", "{name: a, fall: 2}", "has neither http nor command nor probe", "add probe:"),
        (
            "command: [a], probe: {tcp: {}}",
            "{name: a, command: [a], probe: {tcp: {}}}",
            'check "a" has both command and probe',
            "leave one of them",
        ),
        ("command: []", "[]", "is empty", 'write ["./check.sh"]'),
        ("command: ./check.sh", "./check.sh", "is not a list", "write [./check.sh]"),
        ("command: [a, 1]", "1", "is not text", 'in quotes: "1"'),
        ("http: {}", "http", 'has no "url"', "add url: http://"),
        ("http: {url: /x}", "/x", "is not a URL of http", "such as http://"),
        (
            f"http: {{{URL}, json: a}}",
            "a",
            '"json" of "http" of check "a" has no bound',
            "at_most: 0.01 or at_least: 1",
        ),
        (f"http: {{{URL}, at_most: 1}}", "1", "has nothing to be compared", "add json: with"),
        (f"http: {{{URL}, at_least: 1}}", "1", "has nothing to be compared", "add json: with"),
        (
            f"http: {{{URL}, json: a, at_least: 2, at_most: 1}}",
            "1",
            "is less than at_least, so nothing can pass",
            "write 2 or more",
        ),
        (f"http: {{{URL}, json: a, at_most: all}}", "all", "is not a number", "write 0.01"),
        (f"http: {{{URL}, json: a, at_most: yes}}", "yes", "is not a number", "write 0.01"),
        (f"http: {{{URL}, json: $.a.b, at_most: 1}}", "$.a.b", "is not keys with", "write a.b"),
        (f'http: {{{URL}, json: "a[0].b", at_most: 1}}', '"a[0].b"', "dots", "write a.0.b"),
        (f"http: {{{URL}, json: a..b, at_most: 1}}", "a..b", "is not keys with", "write a.b"),
        (f"http: {{{URL}, json: 0, at_most: 1}}", "0", "is not a path in JSON", "with dots"),
        ("probe: {}", "{}", "has neither http nor tcp nor exec", "add http: {path: /deep}"),
        (
            "probe: {tcp: {}, container: web}",
            "web",
            '"container" of "probe" of check "a" says nothing to tcp',
            "share their address",
        ),
        ("probe: {http: {path: up}}", "up", "is not a path", "such as /healthz"),
        ("command: [a], every: 500ms", "500ms", "is shorter than a second", "at least 1s"),
        ("command: [a], fall: 0", "0", "is too small", "the smallest is 1"),
        ("command: [a], timeout: 0s", "0s", "is zero", "at least 1ms"),
        (
            "probe: {exec: {command: [a]}, container: wep}",
            "wep",
            'check "a" runs in a container "wep", which its group does not have',
            'did you mean "web"?',
        ),
    ],
)
def test_a_check_that_cannot_be_meant_says_what_to_write(
    tmp_path: Path, check: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, with_check(check))

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("hook", "pointed", "sentence", "hint"),
    [
        ("timeout: 1s", "{name: a, timeout: 1s}", "has neither command nor http", "add command:"),
        (
            f"command: [a], http: {{{URL}}}",
            f"{{name: a, command: [a], http: {{{URL}}}}}",
            'hook "a" has both command and http',
            "leave one of them",
        ),
        ("command: []", "[]", "is empty", 'write ["./migrate"]'),
        (f"http: {{{URL}, method: DELETE}}", "DELETE", "is not a word", "GET, POST or PUT"),
        (f"http: {{{URL}, method: post}}", "post", "is not a word", "GET, POST or PUT"),
        ('http: {url: "http://a:b@x/"}', '"http://a:b@x/"', "has a user or a", "leave it out"),
        (f"http: {{{URL}}}, container: web", "web", "says nothing to http", "remove it"),
        (f"http: {{{URL}}}, timeout: 0s", "0s", "is zero", "at least 1ms"),
        (f"http: {{{URL}}}, reversible: 1", "1", "is neither true nor false", "true or false"),
        (
            "command: [a], container: api",
            "api",
            'hook "a" runs in a container "api", which its group does not have',
            "write web",
        ),
    ],
)
def test_a_hook_that_cannot_be_meant_says_what_to_write(
    tmp_path: Path, hook: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, with_hook(hook))

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("smoke", "pointed", "sentence", "hint"),
    [
        ("true", "true", "is not a mapping", "write {"),
        ("{requests: []}", "[]", "is empty", 'write [{"path": "/", "status": 200}]'),
        ("{requests: [{path: up}]}", "up", "is not a path", "such as /healthz"),
        ("{requests: [{status: 99}]}", "99", "is too small", "the smallest is 100"),
        ("{requests: [{status: 600}]}", "600", "is too large", "the largest is 599"),
        ("{requests: [{body: 5}]}", "5", "is not text", 'in quotes: "5"'),
        ('{requests: [{body: "a("}]}', '"a("', "is not a regular expression", "as Python reads"),
        ('{requests: [{body: "[[a]"}]}', '"[[a]"', "is not a regular expression: P", "as Python"),
        ('{requests: [{body: "a{99999999999}"}]}', '"a{99999999999}"', "is not a regular", "as"),
        ("{timeout: 0s}", "0s", "is zero", "at least 1ms"),
        ("{rehearse: 1}", "1", "is neither true nor false", "write true or false"),
    ],
)
def test_smoke_that_cannot_be_meant_says_what_to_write(
    tmp_path: Path, smoke: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_rollout(f"smoke: {smoke}"))

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "key", "around", "hint"),
    [
        (in_rollout("compare: true"), "compare", '"rollout" of', 'belongs to "gates"'),
        (in_rollout("max_error_rate: 1%"), "max_error_rate", '"rollout" of', 'to "gates"'),
        (in_rollout("webhooks: {}"), "webhooks", '"rollout" of', 'did you mean "hooks"?'),
        (in_rollout("analysis: {}"), "analysis", '"rollout" of', 'did you mean "gates"?'),
        (in_gates("success_rate: 99%"), "success_rate", '"gates" of', "max_error_rate: 1%"),
        (in_gates("max_p90: 1s"), "max_p90", '"gates" of', 'did you mean "max_p'),
        (in_gates("alpha: 1%"), "alpha", '"gates" of', 'belongs to "compare"'),
        (with_check("tcp: {}"), "tcp", 'check "a"', "probe: {tcp: {}}"),
        (with_check("exec: {}"), "exec", 'check "a"', "probe: {exec: {command: [./check]}}"),
        (with_check("container: web"), "container", 'check "a"', "inside of probe:"),
        (with_check(f"http: {{{URL}, path: a}}"), "path", '"http" of check "a"', "into json:"),
        (with_hook("exec: [a]"), "exec", 'hook "a"', ""),
        (with_hook("command: [a], reversible: true", "after"), "reversible", "hook", "goes back"),
        (in_rollout("hooks: {pre: []}"), "pre", '"hooks" of', "known here: before, gate, after"),
        (in_rollout("smoke: {path: /}"), "path", '"smoke" of', "requests: [{path: /}]"),
        (in_rollout("smoke: {status: 200}"), "status", '"smoke" of', "requests: [{path: /, status"),
        (in_endpoint("sticky: true"), "sticky", 'endpoint "shop"', 'did you mean "affinity"?'),
    ],
)
def test_a_key_at_another_place_or_of_another_system_is_understood(
    tmp_path: Path, text: str, key: str, around: str, hint: str
) -> None:
    problem = problems_of(tmp_path, text)[-1]

    assert problem.text.startswith(f'unknown key "{key}" in {around}')
    assert pointed_at(problem) == key
    assert hint in problem.hint


# -- what must hold between them ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_error_rate", "1%"),
        ("max_p50", "1s"),
        ("max_p95", "1s"),
        ("max_p99", "1s"),
        ("min_requests", "5"),
        ("compare", "true"),
    ],
)
def test_traffic_that_goes_past_us_cannot_be_judged(tmp_path: Path, key: str, value: str) -> None:
    problem = only_problem(tmp_path, in_gates(f"{key}: {value}", "publish: groups"))

    assert problem.text == (
        f'"{key}" of "gates" of endpoint "shop" would see no traffic: with publish: groups clients'
        " connect to the groups, and nothing of it is counted here"
    )
    assert pointed_at(problem) == key
    assert problem.hint == "write checks: with a probe, http or command in its place"


def test_dns_binds_no_client(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, in_endpoint("affinity: client", "publish: groups"))

    assert problem.text == (
        '"affinity" of endpoint "shop" needs the proxy: answers of DNS are not bound to a client in'
        " this version"
    )
    assert (pointed_at(problem), problem.hint) == ("client", "write publish: proxy, or remove it")


def test_latency_is_not_compared_between_clients(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, in_gates("compare: {latency: true}", "affinity: client"))

    assert problem.text == (
        '"latency" of "compare" of endpoint "shop" is not compared with an affinity'
    )
    assert pointed_at(problem) == "true"
    assert problem.hint == "remove it; max_p95: 400ms is a limit that works with one"


@pytest.mark.parametrize("key", ["max_hold: 5m", "on_insufficient: abort"])
def test_what_waits_for_gates_needs_one(tmp_path: Path, key: str) -> None:
    problem = only_problem(tmp_path, in_gates(key))

    name = key.partition(":")[0]
    assert problem.text == f'"{name}" of endpoint "shop" has no gate to wait for'
    assert pointed_at(problem) == name
    assert problem.hint == "add one, such as compare: true, or remove it"


@pytest.mark.parametrize(
    ("rollout", "pointed", "sentence", "hint"),
    [
        (
            "gates: {compare: true, max_hold: 30s}",
            "30s",
            '"max_hold" of endpoint "shop" is less than step 1 is held for: 1m',
            "write 1m or more",
        ),
        (
            "steps: [{weight: 5, hold: 1m}, {weight: 9, hold: 1h}], gates: {compare: true}",
            "gates",
            '"gates" of endpoint "shop" end a step after 30m, but step 2 is held for 1h',
            "add max_hold: 1h or more",
        ),
        (
            "strategy: blue-green, preview: {hold: 1h}, gates: {checks: [{name: a, command: [a]}]}",
            "gates",
            '"gates" of endpoint "shop" end a step after 30m, but the preview is held for 1h',
            "add max_hold: 1h or more",
        ),
    ],
)
def test_a_step_has_the_time_for_its_hold(
    tmp_path: Path, rollout: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_rollout(rollout))

    assert (problem.text, pointed_at(problem), problem.hint) == (sentence, pointed, hint)


@pytest.mark.parametrize(
    ("rollout", "sentence", "hint"),
    [
        (
            "gates: {checks: [{name: a, command: [a]}, {name: a, command: [b]}]}",
            'check "a" has the name of another check of its endpoint',
            "give it one of its own",
        ),
        (
            "gates: {checks: [{name: compare, command: [a]}]}",
            'check "compare" has the name of a gate of ours',
            "give it another name",
        ),
        (
            "hooks: {before: [{name: a, command: [a]}], after: [{name: a, command: [a]}]}",
            'hook "a" has the name of another hook of its endpoint',
            "give it one of its own",
        ),
    ],
)
def test_a_verdict_and_a_hook_are_known_by_their_names(
    tmp_path: Path, rollout: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_rollout(rollout))

    assert (problem.text, problem.hint) == (sentence, hint)
    assert pointed_at(problem) == sentence.split('"')[1]


@pytest.mark.parametrize(
    "text", [with_hook("command: [a]"), with_check("probe: {exec: {command: [a]}}")]
)
def test_among_several_containers_a_command_says_its_own(tmp_path: Path, text: str) -> None:
    problem = only_problem(tmp_path, beside(text))

    assert problem.text.endswith(' "a" does not say in which container its command runs')
    assert problem.hint == "add container: web"


def test_smoke_needs_a_door(tmp_path: Path) -> None:
    text = in_rollout("smoke: {}", "publish: groups").replace('  http: ["127.0.0.1:8080"]\n', "")

    problem = only_problem(tmp_path, text)

    assert problem.text == (
        '"smoke" of endpoint "shop" asks through the proxy, which listens nowhere'
    )
    assert (pointed_at(problem), problem.hint) == (
        "smoke",
        'add listen: {http: ["127.0.0.1:8080"]}',
    )


@pytest.mark.parametrize("publish", ["proxy", "groups"])
def test_listeners_that_are_wrong_themselves_are_not_missed(tmp_path: Path, publish: str) -> None:
    text = in_rollout("smoke: {}", f"publish: {publish}").replace('"127.0.0.1:8080"', "x")

    assert only_problem(tmp_path, text).text.endswith("has no port")


FIVE_MISTAKES = """\
listen: {dns: ["127.0.0.1:5300"]}
zones: [{name: apps.test, ns: [ns1.apps.test]}]
endpoints:
  shop:
    hosts: [shop.apps.test]
    publish: groups
    group: {containers: [{name: web, image: shop/web, ports: [8080]}]}
    rollout:
      gates:
        compare: true
        checks: [{name: compare, command: [a]}]
        max_hold: 1s
      hooks: {gate: [{name: a, command: [a], container: wep}]}
      smoke: {}
"""

FIVE_SENTENCES = """\
shop.yaml:10:9: "compare" of "gates" of endpoint "shop" would see no traffic: with publish: groups \
clients connect to the groups, and nothing of it is counted here
  10 |         compare: true
     |         ^^^^^^^ write checks: with a probe, http or command in its place
shop.yaml:11:25: check "compare" has the name of a gate of ours
  11 |         checks: [{name: compare, command: [a]}]
     |                         ^^^^^^^ give it another name
shop.yaml:12:19: "max_hold" of endpoint "shop" is less than step 1 is held for: 1m
  12 |         max_hold: 1s
     |                   ^^ write 1m or more
shop.yaml:13:57: hook "a" runs in a container "wep", which its group does not have
  13 |       hooks: {gate: [{name: a, command: [a], container: wep}]}
     |                                                         ^^^ did you mean "web"?
shop.yaml:14:7: "smoke" of endpoint "shop" asks through the proxy, which listens nowhere
  14 |       smoke: {}
     |       ^^^^^ add listen: {http: ["127.0.0.1:8080"]}"""


def test_mistakes_are_shown_together_with_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(FIVE_MISTAKES)

    with pytest.raises(ConfigError) as caught:
        load(Path("shop.yaml"))

    assert str(caught.value) == FIVE_SENTENCES


def test_a_gate_of_wrong_shape_does_not_hide_what_is_wrong_elsewhere(tmp_path: Path) -> None:
    text = in_rollout("gates: {max_error_rate: 5}", "affinity: client", "publish: groups")

    problems = problems_of(tmp_path, text)

    assert [pointed_at(problem) for problem in problems] == ["5", "client"]


def test_a_wrong_affinity_does_not_hide_what_is_wrong_elsewhere(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, in_endpoint("affinity: both", "port: 9090"))

    assert [pointed_at(problem) for problem in problems] == ["both", "9090"]
