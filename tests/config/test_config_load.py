"""What a good file means, and that a bad one shows everything at once."""

import copy
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.config_support import (
    GOOD,
    any_problems,
    changed,
    loaded,
    only_problem,
    pointed_at,
    problems_of,
)

from trafficmgr.config.load import ConfigError, load
from trafficmgr.config.settings import (
    Address,
    EndpointConfig,
    RegistrySettings,
    RuntimeSettings,
    UpdatePolicy,
)
from trafficmgr.core.gating import Gates
from trafficmgr.core.model import CandidateReplicas, EndpointSettings, OnNewer, Publish, Step
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    FromEnv,
    FromFile,
    FromSecret,
    GroupTemplate,
    HostPath,
    HttpCheck,
    Mount,
    Probe,
    Resources,
    SecretFiles,
    TcpCheck,
    Volume,
)
from trafficmgr.core.traffic import HttpPolicy

FOLDER = Path(__file__).parents[2] / "config"

THREE_MISTAKES = """\
listen:
  http: ["127.0.0.1:8080"]
endpoints:
  shop:
    hosts: [shop.apps.test]
    ttl: 10
    group:
      containers:
        - name: web
          image: shop/web:stable
          ports: [8080]
          enw: {GREETING: hello}
  api:
    hosts: [shop.apps.test]
    group:
      containers: [{name: api, image: shop/api, ports: [8080]}]
"""

THREE_SENTENCES = """\
shop.yaml:6:10: "ttl" of endpoint "shop" has no unit
  6 |     ttl: 10
    |          ^^ write 10s for seconds or 10m for minutes
shop.yaml:12:11: unknown key "enw" in container "web"
  12 |           enw: {GREETING: hello}
     |           ^^^ did you mean "env"?
shop.yaml:14:13: host "shop.apps.test" of endpoint "api" already leads to "shop"
  14 |     hosts: [shop.apps.test]
     |             ^^^^^^^^^^^^^^ remove one of them, or part them by http: {paths: [/api]}"""


OTHER_ENDPOINT_KEYS = """\
    publish: groups
    ttl: 1m
    ttl_grace: 1s
    max_revisions: 5
    drain: {http: 2s, websocket: 3s}
    rollout:
      {strategy: canary, min_ready: 4s, deadline: 5s, watch: 6s, keep_previous: 8s,
       candidate_replicas: scaled, on_newer: ignore,
       steps: [{weight: 98, hold: 0}, {weight: 99, hold: 1s, pause: true, deadline: 9s}]}
    port: 9090
    hosts:"""

OTHER_CONTAINER_KEYS = """\
[8080, 9090]
          stop_grace: 9s
          readiness: {tcp: {port: 9090}, every: 10s, timeout: 11s, rise: 4, fall: 5}"""


IN_THE_REFERENCE = GroupTemplate(
    resources=Resources(cpu=2, memory_bytes=1024**3),
    volumes=(
        Volume(name="content", source=EmptyDir(size_bytes=64 * 1024**2)),
        Volume(name="keys", source=SecretFiles(files={"api.token": "token"})),
        Volume(name="uploads", source=HostPath(path="/srv/uploads")),
    ),
    init_containers=(
        ContainerTemplate(
            name="fetch",
            image="registry.example.com/shop/content",
            tag="stable",
            mounts=(Mount(volume="content", path="/content"),),
        ),
    ),
    containers=(
        ContainerTemplate(
            name="web",
            image="registry.example.com/shop/web",
            tag="stable",
            command=("./serve", "--verbose"),
            env={"GREETING": "hello", "LIMIT": "20", "REGION": "north"},
            env_from={
                "DB_PASSWORD": FromSecret(name="db-password"),
                "MACHINE": FromFile(path="/etc/hostname"),
                "ZONE": FromEnv(variable="ZONE"),
            },
            ports=(8080,),
            working_dir="/app",
            user="1000:1000",
            mounts=(
                Mount(volume="content", path="/app/content", is_read_only=True),
                Mount(volume="uploads", path="/app/uploads"),
                Mount(volume="keys", path="/run/keys"),
            ),
            resources=Resources(cpu=0.5, memory_bytes=256 * 1024**2),
            readiness=Probe(check=HttpCheck(port=8080, path="/healthz")),
            liveness=Probe(
                check=ExecCheck(command=("./is-alive",)), every_s=10, rise=1, initial_delay_s=30
            ),
            pre_stop=ExecCheck(command=("./say-goodbye",)),
        ),
        ContainerTemplate(name="monitor", image="registry.example.com/shop/monitor", tag="stable"),
    ),
)


def test_three_mistakes_are_all_shown_with_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(THREE_MISTAKES)

    with pytest.raises(ConfigError) as caught:
        load(Path("shop.yaml"))

    assert str(caught.value) == THREE_SENTENCES
    assert len(caught.value.problems) == 3


def test_a_wrong_value_in_one_endpoint_does_not_hide_what_is_wrong_in_another(
    tmp_path: Path,
) -> None:
    text = changed(("replicas: 2", "replicas: 0"))
    text += text.partition("endpoints:\n")[2].replace("shop:", "api:").replace(": 0", ": 1")

    problems = problems_of(tmp_path, text.replace("ports: [8080]\n", "ports: []\n"))

    assert [(p.span.line, pointed_at(p)) for p in problems] == [(10, "0"), (22, "ports")]


def test_a_mistyped_key_does_not_hide_what_the_checks_find(tmp_path: Path) -> None:
    text = changed(
        ("    hosts:", "    tttl: 5s\n    port: 9090\n    hosts:"),
    )

    problems = problems_of(tmp_path, text)

    assert [pointed_at(p) for p in problems] == ["tttl", "9090"]


def test_everything_in_the_annotated_reference_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2, 5})

    found = load(FOLDER / "example.yaml")

    assert found.path == FOLDER / "example.yaml"
    assert found.state_dir == FOLDER / "state"
    assert found.listen_dns == (Address("127.0.0.1", 5300),)
    assert found.listen_http == (Address("127.0.0.1", 8080),)
    assert found.advertise == ("127.0.0.1",)
    assert found.address_pool == "10.213.0.0/16"
    assert found.workers == 3
    assert found.runtime == RuntimeSettings(
        "docker", "unix:///var/run/docker.sock", "registry.example.com/infra/pause:3.9"
    )
    assert found.keep_logs_s == 86400
    assert found.secrets == {
        "token": FromFile(path="/run/secrets/token"),
        "db-password": FromEnv(variable="DB_PASSWORD"),
    }
    assert found.zones == (
        Zone(name="apps.test", ns=("ns1.apps.test",), mailbox="hostmaster@apps.test"),
    )
    assert found.registries == {
        "registry.example.com": RegistrySettings("ci", Path("/run/secrets/registry"), False)
    }
    shop = found.endpoints["shop"]
    shown_elsewhere = shop.settings.but(gates=Gates(), hooks=(), smoke=None, http=HttpPolicy())
    assert EndpointConfig(settings=shown_elsewhere, update=shop.update) == EndpointConfig(
        settings=EndpointSettings(
            name="shop",
            hosts=("shop.apps.test",),
            template=IN_THE_REFERENCE,
            port=8080,
            replicas=2,
            steps=(
                Step(weight_pct=0, hold_s=30.0),
                Step(weight_pct=10, hold_s=30.0),
                Step(weight_pct=50, hold_s=0.0, pause=True, deadline_s=120.0),
            ),
        ),
        update=UpdatePolicy(every_s=30.0),
    )
    assert found.max_concurrent == 2
    assert found.endpoints["api"].settings.steps == (Step(weight_pct=0, hold_s=30.0),)


def test_what_is_left_out_is_what_the_core_says(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD)

    settings = found.endpoints["shop"].settings
    plain = EndpointSettings(
        name="shop",
        hosts=("shop.apps.test",),
        template=GroupTemplate(
            containers=(
                ContainerTemplate(
                    name="web",
                    image="registry.example.com/shop/web",
                    tag="stable",
                    ports=(8080,),
                ),
            )
        ),
        port=8080,
        replicas=2,
    )
    assert settings == plain
    assert found.endpoints["shop"].update.every_s == 60
    assert found.state_dir == tmp_path / "state"
    assert found.address_pool == "127.77.0.0/16"
    assert found.workers == len(os.sched_getaffinity(0))


def test_every_key_of_an_endpoint_reaches_the_core(tmp_path: Path) -> None:
    """Each value differs from its default, so that a forgotten or crossed key shows.

    Gates, hooks and smoke have a page of their own (test_config_gates.py), and so has HTTP.
    """
    text = changed(
        ("listen:\n", "fence: 7s\nworkers: 4\nmax_concurrent: 9\nlisten:\n"),
        ("    hosts:", OTHER_ENDPOINT_KEYS),
        ("[8080]", OTHER_CONTAINER_KEYS),
    )

    found = loaded(tmp_path, text)

    settings = found.endpoints["shop"].settings
    assert settings.but(template=GroupTemplate(containers=())) == EndpointSettings(
        name="shop",
        hosts=("shop.apps.test",),
        template=GroupTemplate(containers=()),
        port=9090,
        replicas=2,
        publish=Publish.groups,
        ttl_s=60,
        ttl_grace_s=1,
        steps=(
            Step(weight_pct=98, hold_s=0),
            Step(weight_pct=99, hold_s=1, pause=True, deadline_s=9),
        ),
        candidate_replicas=CandidateReplicas.scaled,
        on_newer=OnNewer.ignore,
        min_ready_s=4,
        deadline_s=5,
        watch_s=6,
        keep_previous_s=8,
        drain_http_s=2,
        drain_websocket_s=3,
        fence_s=7,
        max_revisions=5,
    )
    container = settings.template.containers[0]
    assert container.stop_grace_s == 9
    assert container.readiness == Probe(
        check=TcpCheck(port=9090), every_s=10, timeout_s=11, rise=4, fall=5
    )
    assert found.workers == 4
    assert found.max_concurrent == 9


CONFIGS = [path for path in sorted(FOLDER.glob("*.yaml")) if "\nendpoints:" in path.read_text()]
"""What is in config/, but for what other programs read (compose.yaml)."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_examples_are_in_order(path: Path) -> None:
    assert load(path).endpoints


@pytest.mark.parametrize(
    "name", ["app-and-source-puller", "app-and-log-shipper", "app-and-monitor", "front-and-back"]
)
def test_examples_of_groups_run_on_either_runtime(name: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    path = tmp_path / "docker.yaml"
    path.write_text(f"{text}\nruntime: docker\n")

    settings = [one.settings for one in load(path).endpoints.values()]

    assert [len(one.template.containers) for one in settings] == [2]
    assert settings == [one.settings for one in load(FOLDER / f"{name}.yaml").endpoints.values()]


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    registry = "registries: {r.test: {username: ci, password_file: secret}}"
    Path("etc/shop.yaml").write_text(f"state_dir: data\n{registry}\n{GOOD}")

    found = load(Path("etc/shop.yaml"))

    assert found.state_dir == tmp_path / "etc" / "data"
    assert found.registries["r.test"].password_file == tmp_path / "etc" / "secret"


def test_a_probe_looks_at_the_only_port_unless_it_is_told_another(tmp_path: Path) -> None:
    text = changed(("[8080]", "[8080]\n          readiness: {http: {path: /up}}"))

    container = loaded(tmp_path, text).endpoints["shop"].settings.template.containers[0]

    assert container.readiness == Probe(check=HttpCheck(port=8080, path="/up"))


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "missing.yaml"

    with pytest.raises(ConfigError) as caught:
        load(path)

    reason = "Is a directory" if kind == "folder" else "No such file or directory"
    assert str(caught.value) == f"{path}: the file can't be read: {reason}; check the path"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_so(tmp_path: Path, text: str) -> None:
    assert str(only_problem(tmp_path, text)).count("\n") in (0, 2)


@pytest.mark.parametrize("text", ["just text\n", "- a list\n"])
def test_a_file_that_is_no_mapping_says_so(tmp_path: Path, text: str) -> None:
    assert only_problem(tmp_path, text).text == "the file is not a mapping"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_edit_of_a_file_leads_to_anything_but_settings_or_problems(
    tmp_path: Path, data: st.DataObject
) -> None:
    lines = (FOLDER / "example.yaml").read_text().splitlines()
    lines = [line for line in lines if line and not line.lstrip().startswith("#")]
    junk = st.sampled_from(
        ["", "x", ":", "- ", "[]", "{}", "~", "7", "-1", "true", "1e9", "&a", "*a", "\t", '"', "é"]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(lines) - 1))
        head, colon, _ = lines[index].partition(": ")
        cut = data.draw(st.integers(0, len(lines[index])))
        lines[index] = data.draw(
            st.sampled_from([f"{head}{colon}", lines[index][:cut], "", f"  {lines[index]}"])
        ) + data.draw(junk)
    path = tmp_path / "edited.yaml"
    path.write_text("\n".join(lines))

    problems = any_problems(path)

    assert all(0 <= problem.span.line <= len(lines) for problem in problems)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_value_anywhere_leads_to_anything_but_settings_or_problems(
    tmp_path: Path, data: st.DataObject
) -> None:
    whole = yaml.safe_load((FOLDER / "example.yaml").read_text())
    odd: st.SearchStrategy[object] = st.sampled_from(
        [None, True, 0, -1, 2.5, 10**17, "", "x", "[", "10s", [], [[]], {}, {"a": 1}, {"port": 5}]
    )
    for _ in range(data.draw(st.integers(1, 3))):
        node, places = whole, []
        while isinstance(node, (dict, list)) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = data.draw(st.sampled_from(keys))
            places.append((node, key))
            node = node[key]
        parent, key = data.draw(st.sampled_from(places))
        parent[key] = copy.deepcopy(data.draw(odd))  # or a list may come to lie in itself, and
        # the walk above never ends
    path = tmp_path / "odd.yaml"
    path.write_text(yaml.safe_dump(whole, allow_unicode=True))

    problems = any_problems(path)

    assert all(problem.span.line and str(problem) for problem in problems)
    assert not [p for p in problems if re.search(r"{(written|ge|le|gt)}", p.hint)]
