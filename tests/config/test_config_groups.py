"""What a group can be made of, and what must hold inside it."""

from pathlib import Path

import pytest
from support.config_support import (
    GOOD,
    changed,
    loaded,
    only_problem,
    pointed_at,
    problems_of,
    with_lines,
)

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
    RestartPolicy,
    SecretFiles,
    TcpCheck,
    Volume,
    revision_id,
)

WHOLE = """\
listen: {http: ["127.0.0.1:8080"]}
secrets: {token: {file: /run/token}}
endpoints:
  jobs:
    hosts: [jobs.apps.test]
    port: 80
    group:
      restart: OnFailure
      resources: {cpu: 2, memory: 512MiB}
      volumes:
        - {name: shared, empty_dir: {size: 64MiB}}
        - {name: free, empty_dir: {}}
        - {name: data, host_path: /srv/data}
        - {name: keys, secret: {tls.key: token}}
      init_containers:
        - name: fetch
          image: shop/fetch:1
          command: [fetch, --all]
          env: {DEPTH: 1}
          working_dir: /work
          user: "0:0"
          mounts: [{volume: shared, path: /shared/}]
          resources: {cpu: 0.5, memory: 1MiB}
          stop_grace: 1s
      containers:
        - name: web
          image: shop/web:2
          user: 1000
          env:
            A: text
            B: {value: text}
            C: {value_from: {secret: token}}
            D: {value_from: {file: /keys/d}}
            E: {value_from: {env: HOSTNAME}}
          ports: [80]
          mounts:
            - {volume: shared, path: /shared, read_only: true}
            - {volume: keys, path: /keys}
          readiness: {exec: {command: [ready]}, initial_delay: 3s}
          liveness: {http: {path: /alive}}
          pre_stop: {http: {path: /drain}}
        - name: worker
          image: shop/worker:3
          ports: [8000]
          liveness: {tcp: {}, initial_delay: 1s, every: 2s, timeout: 3s, fall: 4}
          pre_stop: {exec: {command: [drain, --now]}}
"""


WEB = ContainerTemplate(
    name="web",
    image="docker.io/shop/web",
    tag="2",
    user="1000",
    env={"A": "text", "B": "text"},
    env_from={
        "C": FromSecret(name="token"),
        "D": FromFile(path="/keys/d"),
        "E": FromEnv(variable="HOSTNAME"),
    },
    ports=(80,),
    mounts=(
        Mount(volume="keys", path="/keys"),
        Mount(volume="shared", path="/shared", is_read_only=True),
    ),
    readiness=Probe(check=ExecCheck(command=("ready",)), initial_delay_s=3),
    liveness=Probe(check=HttpCheck(port=80, path="/alive"), every_s=10, rise=1, fall=3),
    pre_stop=HttpCheck(port=80, path="/drain"),
)
WORKER = ContainerTemplate(
    name="worker",
    image="docker.io/shop/worker",
    tag="3",
    ports=(8000,),
    liveness=Probe(
        check=TcpCheck(port=8000), initial_delay_s=1, every_s=2, timeout_s=3, rise=1, fall=4
    ),
    pre_stop=ExecCheck(command=("drain", "--now")),
)
FETCH = ContainerTemplate(
    name="fetch",
    image="docker.io/shop/fetch",
    tag="1",
    command=("fetch", "--all"),
    env={"DEPTH": "1"},
    working_dir="/work",
    user="0:0",
    mounts=(Mount(volume="shared", path="/shared"),),
    resources=Resources(cpu=0.5, memory_bytes=1024**2),
    stop_grace_s=1,
)
"""What WHOLE means."""


def template_of(folder: Path, text: str) -> GroupTemplate:
    (endpoint,) = loaded(folder, text).endpoints.values()
    return endpoint.settings.template


def in_container(*lines: str) -> str:
    return with_lines(*lines, after="ports: [8080]")


def in_group(*lines: str) -> str:
    return with_lines(*lines, after="replicas: 2")


def beside(line: str) -> str:
    """Return the good file with a second container."""
    return f"{GOOD}        - {{{line}}}\n"


# -- what it means --------------------------------------------------------------------------------


def test_every_key_of_a_group_reaches_the_core(tmp_path: Path) -> None:
    """Each value differs from its default, so that a forgotten or crossed key shows."""
    found = template_of(tmp_path, WHOLE)

    assert found == GroupTemplate(
        containers=(WEB, WORKER),
        init_containers=(FETCH,),
        volumes=(
            Volume(name="data", source=HostPath(path="/srv/data")),
            Volume(name="free", source=EmptyDir()),
            Volume(name="keys", source=SecretFiles(files={"tls.key": "token"})),
            Volume(name="shared", source=EmptyDir(size_bytes=64 * 1024**2)),
        ),
        restart=RestartPolicy.on_failure,
        resources=Resources(cpu=2, memory_bytes=512 * 1024**2),
    )


def test_what_is_new_in_the_language_changes_no_group_that_does_not_use_it(tmp_path: Path) -> None:
    """Written out defaults are the same revision, and it is the one that older versions made."""
    old = template_of(tmp_path, GOOD)
    new = template_of(
        tmp_path,
        GOOD.replace("replicas: 2", "restart: Always\n      volumes: []\n      resources: {}")
        + "          mounts: []\n          env: {}\n",
    )
    pinned = "2497ec7e410209101a96c51842aeab425effbcb916aec485e33aea3516ddf996"

    assert revision_id(old, ()) == revision_id(new, ())
    assert revision_id(old, ()) == pinned


def test_a_value_from_a_relative_file_starts_at_the_folder_of_the_config(tmp_path: Path) -> None:
    text = in_container("env: {A: {value_from: {file: keys/a}}}")

    (container,) = template_of(tmp_path, text).containers

    assert container.env_from == {"A": FromFile(path=f"{tmp_path}/keys/a")}


def test_the_order_of_volumes_and_mounts_means_nothing(tmp_path: Path) -> None:
    shuffled = (
        WHOLE.replace("        - {name: free, empty_dir: {}}\n", "")
        .replace("      volumes:\n", "      volumes:\n        - {name: free, empty_dir: {}}\n")
        .replace("            - {volume: keys, path: /keys}\n", "")
        .replace("mounts:\n", "mounts:\n            - {volume: keys, path: /keys}\n")
    )

    assert template_of(tmp_path, shuffled) == template_of(tmp_path, WHOLE)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        (beside("name: b, image: b"), 8080),
        (
            beside("name: b, image: b, ports: [9090]").replace(
                "    group:", "    port: 9090\n    group:"
            ),
            9090,
        ),
        (
            GOOD.replace("ports: [8080]", "command: [a]")
            + "        - {name: b, image: b, ports: [9090]}\n",
            9090,
        ),
    ],
)
def test_the_fronted_port_may_be_that_of_any_container(
    tmp_path: Path, text: str, port: int
) -> None:
    assert loaded(tmp_path, text).endpoints["shop"].settings.port == port


def test_a_task_needs_hosts_and_a_port_like_any_endpoint(tmp_path: Path) -> None:
    text = in_group("restart: Never").replace("          ports: [8080]\n", "")

    problem = only_problem(tmp_path, text)

    assert problem.text == 'endpoint "shop" has no port: none of its containers declares one'
    assert problem.hint == "add ports: [8080] to the container that serves"


# -- keys and values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "sentence", "hint"),
    [
        (in_container("volumeMounts: []"), "volumeMounts", 'in container "web"', '"mounts"?'),
        (in_container("livenessProbe: {}"), "livenessProbe", 'in container "web"', '"liveness"?'),
        (in_container("restart: Always"), "restart", 'in container "web"', "belongs to the group"),
        (in_container("volumes: []"), "volumes", 'in container "web"', "here they are mounts:"),
        (in_container("environment: {}"), "environment", 'in container "web"', '"env"?'),
        (
            in_container("liveness: {tcp: {}, rise: 1}"),
            "rise",
            'in "liveness" of container "web"',
            "one pass is enough to be alive: remove it",
        ),
        (
            in_container("readiness: {tcp: {}, initialDelaySeconds: 5}"),
            "initialDelaySeconds",
            'in "readiness" of container "web"',
            'did you mean "initial_delay"?',
        ),
        (
            in_container("env: {A: {secure_value: x}}"),
            "secure_value",
            'in "A" of "env" of container "web"',
            "write the value to a file",
        ),
        (in_container("pre_stop: {tcp: {}}"), "tcp", 'in "pre_stop" of', "write exec: or http:"),
        (in_group("initContainers: []"), "initContainers", 'in "group"', '"init_containers"?'),
        (in_group("restart_policy: Never"), "restart_policy", 'in "group"', '"restart"?'),
        (
            in_group("init_containers: [{name: pull, image: a, ports: [1]}]"),
            "ports",
            'in init container "pull"',
            "only runs to its end: remove it",
        ),
        (
            in_group("init_containers: [{name: pull, image: a, readiness: {tcp: {}}}]"),
            "readiness",
            'in init container "pull"',
            "only runs to its end: remove it",
        ),
        (in_group("volumes: [{name: a, emptyDir: {}}]"), "emptyDir", 'in volume "a"', "empty_dir"),
    ],
)
def test_a_key_that_is_called_otherwise_elsewhere_is_understood(
    tmp_path: Path, text: str, key: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert problem.text.startswith(f'unknown key "{key}" {sentence}')
    assert pointed_at(problem) == key
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "sentence", "carets", "hint"),
    [
        (in_group("restart: always"), "is not a word", "always", "Always, OnFailure or Never"),
        (in_group("restart: no"), "is not a word that it takes", "no", "Always, OnFailure or"),
        (in_group("volumes: {a: {}}"), "is not a list", "{a: {}}", "write [{"),
        (
            in_group("volumes: [{name: a}]"),
            'volume "a" has neither empty_dir nor host_path nor secret',
            "{name: a}",
            "add empty_dir: {}",
        ),
        (
            in_group("volumes: [{name: a, empty_dir: {}, host_path: /a}]"),
            'volume "a" has both empty_dir and host_path',
            "{name: a, empty_dir: {}, host_path: /a}",
            "leave one of them",
        ),
        (
            in_group("volumes: [{name: a, empty_dir: }]"),
            '"empty_dir" of volume "a" has no value',
            "empty_dir",
            "write {}, or remove the line",
        ),
        (in_group("volumes: [{name: a, empty_dir: {size: 5}}]"), "has no unit", "5", "write 5MiB"),
        (in_group("volumes: [{name: a, host_path: data}]"), "not an absolute path", "data", "/srv"),
        (in_group("volumes: [{name: a, host_path: /a/../b}]"), "has a ..", "/a/../b", "detours"),
        (in_group("volumes: [{name: a, secret: {}}]"), "is empty", "{}", '{"tls.key": "token"}'),
        (
            in_group("volumes: [{name: a, secret: {../b: t}}]"),
            "is not the name of a file",
            "../b",
            "one name without a folder",
        ),
        (in_container("mounts: [{path: /a}]"), 'has no "volume"', "{path: /a}", "add volume: data"),
        (in_container("mounts: [{volume: a, path: b}]"), "not an absolute path", "b", "/data"),
        (in_container("mounts: [{volume: a, path: /}]"), "would hide the whole", "/", "such as"),
        (in_container("mounts: [{volume: a, path: //}]"), "would hide the whole", "//", "such as"),
        (in_container("mounts: [{volume: a, path: /a/..}]"), "has a ..", "/a/..", "detours"),
        (in_container("mounts: [{volume: a, path: /proc}]"), "belongs to", "/proc", "another"),
        (in_container("mounts: [{volume: a, path: /sys/fs}]"), "belongs to", "/sys/fs", "another"),
        (in_container("user: a b"), "is not a user", "a b", '"1000:1000"'),
        (in_container("env: {A: true}"), '"A" of "env" of container', "true", 'quotes: "true"'),
        (in_container("env: {A: [b]}"), "is not text", "[b]", "write hello"),
        (in_container("env: [A]"), "is not a mapping", "[A]", 'write {"GREETING": "hello"}'),
        (in_container("env: {A: ~}"), '"A" of "env" of container "web" has no value', "A", "write"),
        (in_container("env: {A: {}}"), "has neither value nor value_from", "{}", "add value:"),
        (
            in_container("env: {A: {value: b, value_from: {env: C}}}"),
            "has both value and value_from",
            "{value: b, value_from: {env: C}}",
            "leave one of them",
        ),
        (
            in_container("env: {A: {value_from: {}}}"),
            '"value_from" of "A" of "env" of container "web" has neither secret nor file nor env',
            "{}",
            "add secret:",
        ),
        (
            in_container("env: {A: {value_from: {file: b, env: C}}}"),
            "has both file and env",
            "{file: b, env: C}",
            "leave one of them",
        ),
        (in_container("pre_stop: {}"), "has neither exec nor http", "{}", "add exec: {command"),
        (in_container("liveness: {exec: {}}"), 'has no "command"', "exec", "add command: ["),
        (in_container("liveness: {exec: [a]}"), "is not a mapping", "[a]", 'write {"command": ['),
        (in_container("liveness: {exec: {command: []}}"), "is empty", "[]", "write ["),
    ],
)
def test_a_value_that_does_not_fit_says_what_to_write(
    tmp_path: Path, text: str, sentence: str, carets: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert sentence in problem.text
    assert pointed_at(problem) == carets
    assert hint in problem.hint


def test_a_mistyped_key_is_said_once_and_not_that_its_mapping_lacks_one(tmp_path: Path) -> None:
    """Without the key that is meant the mapping is not whole; that is no second mistake."""
    step = changed(("    group:", "    rollout: {steps: [{weight: 9, hld: 1s}]}\n    group:"))

    assert pointed_at(only_problem(tmp_path, step)) == "hld"
    assert pointed_at(only_problem(tmp_path, in_container("env: {A: {valeu: b}}"))) == "valeu"


# -- what must hold inside a group ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence", "carets", "hint"),
    [
        (
            beside("name: b, image: b, ports: [8080]"),
            'port 8080 is taken inside the group by container "web"',
            "8080",
            'one group can\'t have it twice; raise "replicas" for more copies',
        ),
        (
            beside("name: b, image: b, ports: [9090]"),
            'endpoint "shop" does not say which of its ports gets the traffic',
            "ports",
            "add port: 8080 to the endpoint",
        ),
        (
            beside("name: web, image: b"),
            'container "web" has the name of another container of its group',
            "web",
            "give it one of its own",
        ),
        (
            in_group("init_containers: [{name: web, image: b}]"),
            'container "web" has the name of another container of its group',
            "web",
            "give it one of its own",
        ),
        (
            in_group("volumes: [{name: a, empty_dir: {}}, {name: a, host_path: /a}]"),
            'volume "a" is there twice',
            "a",
            "give one of them another name",
        ),
        (
            in_container("mounts: [{volume: data, path: /data}]"),
            'container "web" mounts a volume "data", which its group does not have',
            "data",
            "add it to volumes: of the group",
        ),
        (
            in_group("init_containers: [{name: i, image: b, mounts: [{volume: v, path: /v}]}]"),
            'init container "i" mounts a volume "v", which its group does not have',
            "v",
            "add it to volumes: of the group",
        ),
        (
            in_container("env: {A: {value_from: {secret: token}}}"),
            '"A" of container "web" takes its value from secret "token", which is not there',
            "token",
            "add it at the top level: secrets: {token: {file: /run/secrets/token}}",
        ),
        (
            in_group("volumes: [{name: a, secret: {key: token}}]"),
            '"key" of volume "a" takes its value from secret "token", which is not there',
            "token",
            "add it at the top level: secrets: {token: {file: /run/secrets/token}}",
        ),
        (
            in_container("env: {PORT: 80}"),
            '"PORT" of container "web" is set by trafficmgr itself',
            "PORT",
            "remove it: it is the port to listen at",
        ),
        (
            beside("name: b, image: b, liveness: {http: {}}"),
            '"liveness" of container "b" does not say which port to look at',
            "http",
            "add port: 8080",
        ),
        (
            in_container("liveness: {every: 1s}"),
            '"liveness" of container "web" does not say what to look at',
            "liveness",
            "add http: {path: /healthz}, tcp: {} or exec: {command: [./check]}",
        ),
        (
            in_container("readiness: {http: {}, exec: {command: [a]}}"),
            '"readiness" of container "web" has both http and exec',
            "readiness",
            "leave one of them",
        ),
        (
            beside("name: b, image: b, pre_stop: {http: {}}"),
            '"pre_stop" of container "b" does not say which port to look at',
            "http",
            "add port: 8080",
        ),
    ],
)
def test_what_contradicts_itself_inside_a_group_is_pointed_at(
    tmp_path: Path, text: str, sentence: str, carets: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert (problem.text, problem.hint) == (sentence, hint)
    assert pointed_at(problem) == carets


@pytest.mark.parametrize(
    ("limits", "of_group", "sentence", "hint"),
    [
        ("{memory: 2GiB}", "{memory: 1GiB}", "more memory than its whole group", "write 1GiB or"),
        ("{cpu: 1}", "{cpu: 0.5}", "more CPUs than its whole group, which has 0.5", "0.5 or less"),
    ],
)
def test_no_container_may_have_more_than_its_group(
    tmp_path: Path, limits: str, of_group: str, sentence: str, hint: str
) -> None:
    text = changed(
        ("replicas: 2", f"resources: {of_group}"),
        ("ports: [8080]", f"ports: [8080]\n          resources: {limits}"),
    )

    problem = only_problem(tmp_path, text)

    assert sentence in problem.text
    assert hint in problem.hint


def test_one_container_sees_one_volume_at_a_path(tmp_path: Path) -> None:
    volumes = "volumes: [{name: a, empty_dir: {}}, {name: b, empty_dir: {}}]"
    mounts = "mounts: [{volume: a, path: /x}, {volume: b, path: /x/}]"
    text = in_group(volumes) + f"          {mounts}\n"

    problem = only_problem(tmp_path, text)

    assert problem.text == 'container "web" has two volumes at /x'
    assert pointed_at(problem) == "/x/"
    assert len(template_of(tmp_path, text.replace("/x/", "/x/y")).containers[0].mounts) == 2


@pytest.mark.parametrize(
    "text",
    [
        f"secrets: {{token: {{env: T}}}}\n{in_container('env: {A: {value_from: {secret: tokn}}}')}",
        in_group("volumes: [{name: token, empty_dir: {}}]")
        + "          mounts: [{volume: tokn, path: /a}]\n",
    ],
)
def test_a_name_that_is_not_there_is_told_the_nearest(tmp_path: Path, text: str) -> None:
    problem = only_problem(tmp_path, text)

    assert pointed_at(problem) == "tokn"
    assert problem.hint == 'did you mean "token"?'


def test_mistakes_in_several_containers_are_all_shown(tmp_path: Path) -> None:
    text = in_container("env: {HOST: a}", "mounts: [{volume: v, path: /v}]")
    text += "        - {name: b, image: b, ports: [8080], env: {LOCALHOST: a}}\n"

    problems = problems_of(tmp_path, text)

    assert [pointed_at(p) for p in problems] == ["HOST", "v", "8080", "LOCALHOST"]
