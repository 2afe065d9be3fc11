"""What another config would change: no key is forgotten, nothing secret is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.config_support import GOOD, changed, loaded, with_lines

from trafficmgr.config.settings import (
    Address,
    EndpointConfig,
    RuntimeSettings,
    Settings,
    UpdatePolicy,
)
from trafficmgr.controller.plan import Changed, Fate, Plan, compared, differences
from trafficmgr.controller.written import written
from trafficmgr.controller.written_http import front
from trafficmgr.core.fleet import Fleet
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
from trafficmgr.core.model import (
    Affinity,
    CandidateReplicas,
    EndpointSettings,
    OnNewer,
    Publish,
    Step,
)
from trafficmgr.core.noun import Noun
from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    FromSecret,
    GroupTemplate,
    HostPath,
    HttpCheck,
    Mount,
    Probe,
    Resources,
    RestartPolicy,
    SecretFiles,
    TcpCheck,
    Volume,
)
from trafficmgr.core.traffic import (
    AccessLog,
    Balance,
    Certificate,
    Ejection,
    Front,
    HttpPolicy,
    Pin,
    PinTo,
)

CONTAINER = ContainerTemplate(name="web", image="r.test/web", ports=(8080,))
TEMPLATE = GroupTemplate(containers=(CONTAINER,))
GIVEN = EndpointSettings(name="shop", hosts=("shop.test",), template=TEMPLATE, port=8080)

OTHERS: dict[str, Any] = {
    "hosts": ("other.test",),
    "template": GroupTemplate(containers=(CONTAINER.but(image="r.test/other"),)),
    "port": 9090,
    "replicas": 2,
    "publish": Publish.groups,
    "ttl_s": 11,
    "steps": (Step(weight_pct=1, hold_s=1.0),),
    "candidate_replicas": CandidateReplicas.scaled,
    "on_newer": OnNewer.queue,
    "max_revisions": 4,
    "affinity": Affinity.client,
    "gates": Gates(compare=Compare()),
    "hooks": (Hook(name="a", stage=HookStage.after, action=HttpCall(url="http://x/")),),
    "smoke": Smoke(),
    "http": HttpPolicy(retry_budget_pct=0),
}
"""Of each key that is no duration, another value."""

CHECK = Check(name="a", ask=CommandCheck(command=("check",)))
HOOK = Hook(name="a", stage=HookStage.before, action=HttpCall(url="http://x/"))

OTHER_GATES: dict[str, Any] = {
    "max_error_rate": 0.01,
    "max_p50_s": 0.1,
    "max_p95_s": 0.1,
    "max_p99_s": 0.1,
    "min_requests": 1,
    "compare": Compare(alpha=0.02),
    "checks": (CHECK,),
    "max_hold_s": 1.0,
    "on_insufficient": OnInsufficient.abort,
}
OTHER_COMPARES: dict[str, Any] = {"alpha": 0.0100001, "catch": 0.1, "has_latency": False}
OTHER_CHECKS: dict[str, Any] = {
    "name": "b",
    "ask": CommandCheck(command=("check", "more")),
    "every_s": 31.0,
    "timeout_s": 11.0,
    "fall": 2,
}
OTHER_HOOKS: dict[str, Any] = {
    "name": "b",
    "stage": HookStage.gate,
    "action": HttpCall(url="http://y/"),
    "timeout_s": 1.0,
    "is_reversible": False,
}
OTHER_SMOKES: dict[str, Any] = {
    "requests": (SmokeRequest(), SmokeRequest()),
    "timeout_s": 1.0,
    "is_rehearsed": True,
}
OTHER_POLICIES: dict[str, Any] = {
    "paths": ("/api",),
    "balance": Balance.least_requests,
    "affinity_name": "session",
    "pins": (Pin(header="x-canary", to=PinTo.candidate),),
    "ejection": None,
    "retry_budget_pct": 21,
    "max_body_bytes": 1,
    "connect_s": 1.0,
    "response_head_s": 1.0,
    "stream_idle_s": 1.0,
    "tunnel_idle_s": 1.0,
    "max_requests": 1,
    "queue_limit": 0,
    "queue_s": 1.0,
    "hold_s": 1.0,
    "hold_limit": 0,
    "redirects_to_https": True,
}
OTHER_PINS: dict[str, Any] = {"to": PinTo.stable, "header": "y", "value": "1"}
OTHER_EJECTIONS: dict[str, Any] = {"failures": 1, "base_s": 1.0, "longest_s": 1.0}
OTHER_FRONTS: dict[str, Any] = {
    "request_line_bytes": 1024,
    "head_bytes": 1024,
    "fields": 10,
    "head_s": 1.0,
    "idle_s": 1.0,
    "max_connections": 1,
    "trusted_proxies": ("10.0.0.0/8",),
    "names_requests": False,
    "has_via": True,
    "access_log": AccessLog(path="/log"),
    "certificates": (Certificate(certificate="/a.pem", key="/a.key"),),
}
NO_SETTING = {"is_held", "drain_websocket_s"}
"""Of a policy: an operator says the one, and `drain` the other."""

OTHER_REQUESTS: dict[str, Any] = {"path": "/up", "status": 204, "body": "Hello"}

OTHER_CONTAINERS: dict[str, Any] = {
    "name": "api",
    "image": "r.test/other",
    "tag": "other",
    "command": ("run",),
    "env": {"GREETING": ""},
    "ports": (8080, 9090),
    "working_dir": "/app",
    "resources": Resources(cpu=0.5),
    "stop_grace_s": 11.0,
    "readiness": Probe(check=TcpCheck(port=8080)),
    "env_from": {"TOKEN": FromSecret(name="token")},
    "user": "1000",
    "mounts": (Mount(volume="data", path="/data"),),
    "liveness": Probe(check=TcpCheck(port=8080)),
    "pre_stop": ExecCheck(command=("drain",)),
}

OTHER_GROUPS: dict[str, Any] = {
    "containers": (CONTAINER, CONTAINER.but(name="two", ports=())),
    "init_containers": (CONTAINER.but(name="first", ports=()),),
    "volumes": (Volume(name="data", source=EmptyDir()),),
    "restart": RestartPolicy.never,
    "resources": Resources(memory_bytes=1),
    "rootfs": "image",
}


def config(settings: EndpointSettings = GIVEN, every_s: float = 60.0) -> EndpointConfig:
    return EndpointConfig(settings=settings, update=UpdatePolicy(every_s=every_s))


def with_container(container: ContainerTemplate) -> EndpointSettings:
    return GIVEN.but(template=GroupTemplate(containers=(container,)))


@pytest.mark.parametrize(
    "field", [f.name for f in msgspec.structs.fields(EndpointSettings) if f.name != "name"]
)
def test_no_setting_of_an_endpoint_is_forgotten(field: str) -> None:
    other = OTHERS[field] if field in OTHERS else getattr(GIVEN, field) + 1.0

    assert written(config(GIVEN.but(**{field: other}))) != written(config())


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(ContainerTemplate)])
def test_no_setting_of_a_container_is_forgotten(field: str) -> None:
    other = CONTAINER.but(**{field: OTHER_CONTAINERS[field]})

    assert written(config(with_container(other))) != written(config())


@pytest.mark.parametrize("field", [f.name for f in msgspec.structs.fields(GroupTemplate)])
def test_no_setting_of_a_group_is_forgotten(field: str) -> None:
    other = GIVEN.but(template=TEMPLATE.but(**{field: OTHER_GROUPS[field]}))

    assert written(config(other)) != written(config())


def test_the_order_of_containers_is_a_change() -> None:
    """They start and end in it."""
    one, two = CONTAINER, CONTAINER.but(name="two", ports=())
    before = GIVEN.but(template=GroupTemplate(containers=(one, two)))
    after = GIVEN.but(template=GroupTemplate(containers=(two, one)))

    assert [c.key for c in differences(written(config(before)), written(config(after)))] == [
        "group.containers"
    ]


@pytest.mark.parametrize(
    "sources",
    [
        (EmptyDir(), EmptyDir(size_bytes=1024)),
        (HostPath(path="/a"), HostPath(path="/b")),
        (SecretFiles(files={"key": "a"}), SecretFiles(files={"key": "b"})),
        (SecretFiles(files={"key": "a"}), SecretFiles(files={"key": "a", "other": "a"})),
        (EmptyDir(), HostPath(path="/a")),
    ],
)
def test_no_setting_of_a_volume_is_forgotten(sources: tuple[Any, Any]) -> None:
    one, other = (
        written(config(GIVEN.but(template=TEMPLATE.but(volumes=(Volume(name="v", source=s),)))))
        for s in sources
    )

    assert one["group.volumes.v"] != other["group.volumes.v"]


def test_whether_a_mount_is_read_only_is_a_change() -> None:
    mount = Mount(volume="data", path="/data")

    assert written(config(with_container(CONTAINER.but(mounts=(mount,))))) != written(
        config(with_container(CONTAINER.but(mounts=(mount.but(is_read_only=True),))))
    )


@pytest.mark.parametrize(
    "other",
    [
        Probe(check=HttpCheck(port=8080, path="/")),
        Probe(check=ExecCheck(command=("check",))),
        Probe(check=TcpCheck(port=8080), initial_delay_s=1.0),
        Probe(check=TcpCheck(port=9090)),
        Probe(check=TcpCheck(port=8080), every_s=2.0),
        Probe(check=TcpCheck(port=8080), timeout_s=2.0),
        Probe(check=TcpCheck(port=8080), rise=3),
        Probe(check=TcpCheck(port=8080), fall=2),
    ],
)
def test_no_setting_of_a_probe_is_forgotten(other: Probe) -> None:
    known = CONTAINER.but(readiness=Probe(check=TcpCheck(port=8080)))

    assert written(config(with_container(known.but(readiness=other)))) != written(
        config(with_container(known))
    )


def with_compare(compare: Compare) -> EndpointSettings:
    return GIVEN.but(gates=Gates(compare=compare))


def with_check(check: Check) -> EndpointSettings:
    return GIVEN.but(gates=Gates(checks=(check,)))


def with_hook(hook: Hook) -> EndpointSettings:
    return GIVEN.but(hooks=(hook,))


def with_request(request: SmokeRequest) -> EndpointSettings:
    return GIVEN.but(smoke=Smoke(requests=(request,)))


def with_pin(pin: Pin) -> EndpointSettings:
    return GIVEN.but(http=HttpPolicy(pins=(pin,)))


def with_ejection(ejection: Ejection) -> EndpointSettings:
    return GIVEN.but(http=HttpPolicy(ejection=ejection))


WITHIN: list[tuple[Noun, dict[str, Any], Any]] = [
    (Gates(), OTHER_GATES, lambda gates: GIVEN.but(gates=gates)),
    (Compare(), OTHER_COMPARES, with_compare),
    (CHECK, OTHER_CHECKS, with_check),
    (HOOK, OTHER_HOOKS, with_hook),
    (Smoke(), OTHER_SMOKES, lambda smoke: GIVEN.but(smoke=smoke)),
    (SmokeRequest(), OTHER_REQUESTS, with_request),
    (HttpPolicy(), OTHER_POLICIES, lambda http: GIVEN.but(http=http)),
    (Pin(header="x", to=PinTo.candidate), OTHER_PINS, with_pin),
    (Ejection(), OTHER_EJECTIONS, with_ejection),
]
"""What a rollout and `http` have below them, another value of each of its fields, the way to it."""


@pytest.mark.parametrize(
    ("noun", "field", "others", "within"),
    [
        pytest.param(noun, field.name, others, within, id=f"{type(noun).__name__} {field.name}")
        for noun, others, within in WITHIN
        for field in msgspec.structs.fields(noun)
        if field.name not in NO_SETTING and (type(noun), field.name) != (Pin, "cookie")
    ],
)
def test_no_setting_further_below_is_forgotten(
    noun: Noun, field: str, others: dict[str, Any], within: Any
) -> None:
    other = noun.but(**{field: others[field]})

    assert written(config(within(other))) != written(config(within(noun)))


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(Front)])
def test_no_setting_of_connections_is_forgotten(field: str) -> None:
    assert dict(front(Front(**{field: OTHER_FRONTS[field]}))) != dict(front(Front()))


def test_a_pin_by_a_cookie_is_another_than_by_a_header() -> None:
    by_cookie, by_header = Pin(cookie="x", to=PinTo.stable), Pin(header="x", to=PinTo.stable)

    assert written(config(with_pin(by_cookie))) != written(config(with_pin(by_header)))


@pytest.mark.parametrize("field", ["path", "format"])
def test_no_setting_of_the_access_log_is_forgotten(field: str) -> None:
    log = AccessLog(path="/log")
    other = log.but(**{field: "combined"})

    assert dict(front(Front(access_log=other))) != dict(front(Front(access_log=log)))


ASKS: list[JsonCheck | CommandCheck | ProbeCheck] = [
    JsonCheck(url="http://x/"),
    JsonCheck(url="http://y/"),
    JsonCheck(url="http://x/", path="a", at_most=1.0),
    JsonCheck(url="http://x/", path="b", at_most=1.0),
    JsonCheck(url="http://x/", path="a", at_most=1.0000001),
    JsonCheck(url="http://x/", path="a", at_least=1.0),
    JsonCheck(url="http://x/", path="a", at_least=1.0, at_most=1.0),
    CommandCheck(command=("a b",)),
    CommandCheck(command=("a", "b")),
    ProbeCheck(check=HttpCheck(port=80, path="/deep")),
    ProbeCheck(check=TcpCheck(port=80)),
    ProbeCheck(check=ExecCheck(command=("a", "b"))),
    ProbeCheck(check=ExecCheck(command=("a", "b")), container="web"),
]


def test_no_two_gates_that_ask_for_different_things_are_written_alike() -> None:
    said = {
        written(config(with_check(CHECK.but(ask=ask))))["rollout.gates.checks.a"] for ask in ASKS
    }

    assert len(said) == len(ASKS)


ACTIONS: list[HttpCall | TaskCommand] = [
    HttpCall(url="http://x/"),
    HttpCall(url="http://x/", method="GET"),
    TaskCommand(container="web", command=("a b",)),
    TaskCommand(container="web", command=("a", "b")),
    TaskCommand(container="api", command=("a", "b")),
]


def test_no_two_hooks_that_do_different_things_are_written_alike() -> None:
    said = {
        written(config(with_hook(HOOK.but(action=action))))["rollout.hooks.before.a"]
        for action in ACTIONS
    }

    assert len(said) == len(ACTIONS)


def test_the_order_of_hooks_is_a_change() -> None:
    """They are done in it."""
    other = HOOK.but(name="b")
    before, after = GIVEN.but(hooks=(HOOK, other)), GIVEN.but(hooks=(other, HOOK))

    assert [c.key for c in differences(written(config(before)), written(config(after)))] == [
        "rollout.hooks.before"
    ]


def test_how_often_the_registry_is_asked_is_a_change() -> None:
    assert written(config(every_s=1.0)) != written(config())


# -- whole files ----------------------------------------------------------------------------------


def planned(folder: Path, new: str, old: str = GOOD) -> Plan:
    return compared(loaded(folder, old), loaded(folder, new), Fleet())


def only_endpoint(plan: Plan) -> Any:
    (endpoint,) = plan.endpoints
    return endpoint


def test_the_same_config_changes_nothing(tmp_path: Path) -> None:
    """Also if defaults are written out and the order is another."""
    same = with_lines("ttl: 10s", "publish: proxy", after="hosts: [shop.apps.test]")

    assert planned(tmp_path, same).changes_nothing


def test_a_key_is_named_as_in_the_file_with_both_values(tmp_path: Path) -> None:
    plan = planned(tmp_path, changed(("replicas: 2", "replicas: 3")))

    assert only_endpoint(plan).fate is Fate.changed
    assert only_endpoint(plan).changed == (Changed(key="group.replicas", old="2", new="3"),)
    assert not only_endpoint(plan).has_new_group


PROVED = (
    "rollout:\n"
    "      gates: {max_error_rate: 1%, compare: true, checks: [{name: deep, probe: {tcp: {}}}]}\n"
    "      hooks: {before: [{name: migrate, command: [./migrate, --all], reversible: false}]}\n"
    "      smoke: {requests: [{path: /up, body: Hello}], rehearse: true}\n"
    "    affinity: client"
)
PROVED_SAID = {
    "affinity": ("none", "client"),
    "rollout.gates.max_error_rate": ("", "1%"),
    "rollout.gates.compare": ("", "alpha 1%, catch 5%, without latency"),
    "rollout.gates.checks.deep": ("", "probe tcp :8080 every 30s, timeout 10s, fall 1"),
    "rollout.hooks.before": ("", "migrate"),
    "rollout.hooks.before.migrate": (
        "",
        "command ./migrate --all in web, timeout 10m, not reversible",
    ),
    "rollout.smoke": ("", "GET /up is 200 with 'Hello', timeout 10s, rehearsed"),
}


def test_what_a_revision_must_prove_is_said_key_by_key_and_is_no_new_revision(
    tmp_path: Path,
) -> None:
    new = with_lines(PROVED, after="hosts: [shop.apps.test]")

    endpoint = only_endpoint(planned(tmp_path, new))

    assert {one.key: (one.old, one.new) for one in endpoint.changed} == PROVED_SAID
    assert (endpoint.has_new_group, endpoint.has_new_tag) == (False, False)


SERVED = (
    "affinity: {cookie: session}\n"
    "    http:\n"
    "      paths: [/api]\n"
    "      max_requests: 100\n"
    "      queue: {limit: 3}\n"
    "      ejection: false\n"
    "      pins: [{cookie: preview, to: candidate}, {header: X-A, value: b, to: stable}]"
)
SERVED_SAID = {
    "affinity": ("none", "cookie session"),
    "http.paths": ("", "/api"),
    "http.max_requests": ("", "100"),
    "http.queue": ("100 for 5s", "3 for 5s"),
    "http.ejection": ("after 5 failures for 10s to 5m", "never"),
    "http.pins": ("", "cookie preview to candidate, header x-a 'b' to stable"),
}


def test_how_http_is_served_is_said_key_by_key_and_is_no_new_revision(tmp_path: Path) -> None:
    endpoint = only_endpoint(planned(tmp_path, with_lines(SERVED, after="hosts: [shop.apps.test]")))

    assert {one.key: (one.old, one.new) for one in endpoint.changed} == SERVED_SAID
    assert (endpoint.has_new_group, endpoint.has_new_tag) == (False, False)


def test_what_is_in_the_environment_is_not_said(tmp_path: Path) -> None:
    old = with_lines("env: {TOKEN: secret-1, OLD: x}", after="ports: [8080]")
    new = with_lines("env: {TOKEN: secret-2, NEW: y}", after="ports: [8080]")

    endpoint = only_endpoint(planned(tmp_path, new, old))

    said = {one.key.rpartition(".")[2]: (one.old, one.new) for one in endpoint.changed}
    assert said == {
        "TOKEN": ("(hidden)", "(hidden)"),
        "OLD": ("(hidden)", ""),
        "NEW": ("", "(hidden)"),
    }
    assert endpoint.has_new_group


def test_where_a_value_comes_from_is_said_but_not_the_value(tmp_path: Path) -> None:
    secrets = "secrets: {token: {file: /run/token}}\n"
    old = secrets + with_lines("env: {TOKEN: =canary}", after="ports: [8080]")
    new = old.replace("=canary", "{value_from: {secret: token}}")

    endpoint = only_endpoint(planned(tmp_path, new, old))

    assert endpoint.changed == (
        Changed(key="group.containers.web.env.TOKEN", old="(hidden)", new="from secret token"),
    )
    assert endpoint.has_new_group


def test_a_new_tag_of_an_init_container_is_one(tmp_path: Path) -> None:
    old = with_lines("init_containers: [{name: first, image: shop/first:1}]", after="replicas: 2")

    endpoint = only_endpoint(planned(tmp_path, old.replace("first:1", "first:2"), old))

    assert (endpoint.has_new_group, endpoint.has_new_tag) == (False, True)


@pytest.mark.parametrize(
    ("image", "more", "has_new_group", "has_new_tag"),
    [
        ("shop/web:other", "", False, True),
        ("shop/api:stable", "", True, False),
        ("shop/web:stable", "stop_grace: 3s", True, False),
        ("shop/web:stable", "user: web", True, False),
        ("shop/web:stable", "readiness: {tcp: {}}", False, False),
        ("shop/web:stable", "liveness: {tcp: {}}", False, False),
    ],
)
def test_what_makes_a_new_revision_is_told_apart(
    tmp_path: Path, image: str, more: str, has_new_group: bool, has_new_tag: bool
) -> None:
    lines = f"image: registry.example.com/{image}\n          {more}"
    plan = planned(tmp_path, changed(("image: registry.example.com/shop/web:stable", lines)))

    endpoint = only_endpoint(plan)
    assert (endpoint.has_new_group, endpoint.has_new_tag) == (has_new_group, has_new_tag)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("state_dir", lambda s: replace(s, state_dir=Path("/else"))),
        ("listen.dns", lambda s: replace(s, listen_dns=())),
        ("listen.http", lambda s: replace(s, listen_http=(Address("127.0.0.1", 1),))),
        ("listen.https", lambda s: replace(s, listen_https=(Address("127.0.0.1", 1),))),
        ("address_pool", lambda s: replace(s, address_pool="127.9.0.0/16")),
        ("workers", lambda s: replace(s, workers=s.workers + 1)),
        ("runtime", lambda s: replace(s, runtime=RuntimeSettings("docker"))),
        ("runtime.host", lambda s: replace(s, runtime=RuntimeSettings(host="unix:///x"))),
        ("runtime.pause_image", lambda s: replace(s, runtime=RuntimeSettings(pause_image="p:1"))),
    ],
)
def test_what_needs_a_restart_is_named(tmp_path: Path, key: str, change: Any) -> None:
    old: Settings = loaded(tmp_path, GOOD)

    plan = compared(old, change(old), Fleet())

    assert [one.key for one in plan.restart] == [key]
    assert not plan.changes_nothing


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("advertise", "advertise: [192.0.2.1]"),
        ("max_concurrent", "max_concurrent: 1"),
        ("registries.r.test", "registries: {r.test: {insecure: true}}"),
        ("keep_logs", "keep_logs: 1h"),
        ("secrets.token", "secrets: {token: {env: TOKEN}}"),
        ("http.idle", "http: {idle: 5s}"),
        ("http.trusted_proxies", "http: {trusted_proxies: [10.0.0.0/8]}"),
    ],
)
def test_what_concerns_the_whole_service_is_applied_as_it_runs(
    tmp_path: Path, key: str, line: str
) -> None:
    plan = planned(tmp_path, f"{line}\n{GOOD}")

    assert [one.key for one in plan.service] == [key]
    assert plan.restart == ()


def test_every_field_of_the_settings_is_compared() -> None:
    """A field that is added has to be put into `restart` or `service`, or be an endpoint's."""
    elsewhere = {"path", "endpoints"}
    restart = {"state_dir", "listen_dns", "listen_http", "listen_https", "address_pool", "workers"}
    restart |= {"runtime"}
    service = {"advertise", "max_concurrent", "zones", "registries", "keep_logs_s", "secrets"}
    service |= {"front", "dns"}

    assert set(Settings.__slots__) == elsewhere | restart | service


def test_a_host_that_moves_to_an_endpoint_that_has_to_start_is_named(tmp_path: Path) -> None:
    plan = planned(tmp_path, changed(("  shop:\n", "  store:\n")))

    assert [(e.name, e.fate) for e in plan.endpoints] == [
        ("shop", Fate.removed),
        ("store", Fate.new),
    ]
    assert [(m.host, m.old, m.new) for m in plan.moved] == [("shop.apps.test", "shop", "store")]


def test_a_path_that_another_endpoint_takes_over_is_named(tmp_path: Path) -> None:
    """The rest of the host stays where it was."""
    api = GOOD.partition("endpoints:\n")[2].replace("  shop:", "  api:")
    new = GOOD + api.replace("    group:", "    http: {paths: [/api]}\n    group:")
    third = api.replace("  api:", "  v2:").replace(
        "    group:", "    http: {paths: [/api/v2]}\n    group:"
    )

    first, second = planned(tmp_path, new), planned(tmp_path, new + third, new)

    assert [(m.host, m.old, m.new) for m in first.moved] == [("shop.apps.test/api", "shop", "api")]
    assert [(m.host, m.old, m.new) for m in second.moved] == [
        ("shop.apps.test/api/v2", "api", "v2")
    ]


def test_a_path_that_nobody_had_moves_from_nobody(tmp_path: Path) -> None:
    one = with_lines("http: {paths: [/shop]}", after="hosts: [shop.apps.test]")
    api = one.partition("endpoints:\n")[2].replace("  shop:", "  api:")

    plan = planned(tmp_path, one + api.replace("[/shop]", "[/shops]"), one)

    assert plan.moved == ()
