"""What another config would change: no key is forgotten, nothing secret is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.config_support import GOOD, changed, loaded, with_lines

from trafficmgr.config.settings import Address, EndpointConfig, Settings, UpdatePolicy
from trafficmgr.controller.plan import Changed, Fate, Plan, compared, written
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import CandidateReplicas, EndpointSettings, OnNewer, Publish, Step
from trafficmgr.core.template import (
    ContainerTemplate,
    GroupTemplate,
    HttpCheck,
    Probe,
    Resources,
    TcpCheck,
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
}
"""Of each key that is no duration, another value."""

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


@pytest.mark.parametrize(
    "other",
    [
        Probe(check=HttpCheck(port=8080, path="/")),
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


@pytest.mark.parametrize(
    ("image", "more", "has_new_group", "has_new_tag"),
    [
        ("shop/web:other", "", False, True),
        ("shop/api:stable", "", True, False),
        ("shop/web:stable", "stop_grace: 3s", True, False),
        ("shop/web:stable", "readiness: {tcp: {}}", False, False),
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
        ("address_pool", lambda s: replace(s, address_pool="127.9.0.0/16")),
        ("workers", lambda s: replace(s, workers=s.workers + 1)),
        ("runtime", lambda s: replace(s, runtime="docker")),
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
    restart = {"state_dir", "listen_dns", "listen_http", "address_pool", "workers", "runtime"}
    service = {"advertise", "max_concurrent", "zones", "registries"}

    assert set(Settings.__slots__) == elsewhere | restart | service


def test_a_host_that_moves_to_an_endpoint_that_has_to_start_is_named(tmp_path: Path) -> None:
    plan = planned(tmp_path, changed(("  shop:\n", "  store:\n")))

    assert [(e.name, e.fate) for e in plan.endpoints] == [
        ("shop", Fate.removed),
        ("store", Fate.new),
    ]
    assert [(m.host, m.old, m.new) for m in plan.moved] == [("shop.apps.test", "shop", "store")]
