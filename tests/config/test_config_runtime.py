"""Which engine runs the groups, the network that they get, how long logs stay, secrets."""

from pathlib import Path

import pytest
from support.config_support import GOOD, changed, loaded, only_problem, pointed_at, problems_of

from trafficmgr.config.settings import RuntimeSettings
from trafficmgr.core.template import FromEnv, FromFile

DIRECT = changed(("    hosts:", "    publish: groups\n    hosts:"))
AWAY = DIRECT.replace('dns: ["127.0.0.1', 'dns: ["192.0.2.1')


# -- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        ("", RuntimeSettings()),
        ("runtime: embedded\n", RuntimeSettings("embedded")),
        ("runtime: {kind: embedded}\n", RuntimeSettings("embedded")),
        ("runtime: docker\n", RuntimeSettings("docker")),
        (
            "runtime: {kind: docker, host: unix:///run/podman.sock, pause_image: r.test/p:1}\n",
            RuntimeSettings("docker", "unix:///run/podman.sock", "r.test/p:1"),
        ),
    ],
)
def test_the_kind_of_engine_may_stand_alone(
    tmp_path: Path, written: str, settings: RuntimeSettings
) -> None:
    assert loaded(tmp_path, written + GOOD).runtime == settings


@pytest.mark.parametrize(
    ("written", "sentence", "carets", "hint"),
    [
        ("dockr", '"runtime" is not a word that it takes', "dockr", "write embedded or docker"),
        ("[docker]", '"runtime" is not a word that it takes', "[docker]", "write embedded or"),
        ("podman", '"runtime" is not a word', "podman", "host: unix:///run/podman/podman.sock}"),
        ("{host: unix:///x}", '"runtime" has no "kind"', "runtime", "add kind: docker"),
        ("{kind: docker, hst: x}", 'unknown key "hst" in "runtime"', "hst", 'mean "host"?'),
        ("{kind: embedded, host: unix:///x}", "belongs to the Docker", "unix:///x", "kind: docker"),
        ("{kind: embedded, pause_image: p}", '"pause_image" of "runtime" belongs', "p", "remove"),
    ],
)
def test_an_engine_that_there_is_not_says_what_to_write(
    tmp_path: Path, written: str, sentence: str, carets: str, hint: str
) -> None:
    problem = only_problem(tmp_path, f"runtime: {written}\n{GOOD}")

    assert sentence in problem.text
    assert pointed_at(problem) == carets
    assert hint in problem.hint


# -- the network ----------------------------------------------------------------------------------


def test_each_engine_has_a_pool_of_its_own(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD).address_pool == "127.77.0.0/16"
    assert loaded(tmp_path, f"runtime: docker\n{GOOD}").address_pool == "10.213.0.0/16"


@pytest.mark.parametrize(
    ("written", "sentence", "hint"),
    [
        (
            "address_pool: 10.9.0.0/16",
            "address_pool is not on loopback, where the embedded runtime puts its groups",
            "write 127.77.0.0/16, or runtime: docker",
        ),
        (
            "runtime: docker\naddress_pool: 127.77.0.0/16",
            "address_pool is on loopback, which no two containers of Docker share",
            "write 10.213.0.0/16, or leave it out",
        ),
    ],
)
def test_a_pool_has_to_be_where_the_engine_puts_its_groups(
    tmp_path: Path, written: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, f"{written}\n{GOOD}")

    assert (problem.text, problem.hint) == (sentence, hint)
    assert pointed_at(problem) in written


def test_the_pool_is_not_blamed_for_an_engine_that_there_is_not(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, f"runtime: dockr\naddress_pool: 10.9.0.0/16\n{GOOD}")

    assert pointed_at(problem) == "dockr"


def test_nobody_listens_inside_the_network_of_docker(tmp_path: Path) -> None:
    text = changed(('http: ["127.0.0.1', 'http: ["10.213.255.254'))

    problem = only_problem(tmp_path, f"runtime: docker\n{text}")

    assert (
        problem.text == "10.213.255.254:8080 lies in address_pool, where groups get their addresses"
    )
    assert loaded(tmp_path, text).endpoints


def test_groups_on_docker_may_be_published_to_other_machines(tmp_path: Path) -> None:
    """A private network can be routed; loopback can't."""
    assert loaded(tmp_path, f"runtime: docker\n{AWAY}").endpoints
    assert "publishes loopback addresses" in only_problem(tmp_path, AWAY).text


# -- logs -----------------------------------------------------------------------------------------


def test_logs_are_kept_for_a_day_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert loaded(tmp_path, GOOD).keep_logs_s == 86400
    assert loaded(tmp_path, f"keep_logs: 90m\n{GOOD}").keep_logs_s == 5400
    assert loaded(tmp_path, f"keep_logs: 0s\n{GOOD}").keep_logs_s == 0
    assert '"keep_logs" has no unit' in only_problem(tmp_path, f"keep_logs: 24\n{GOOD}").text


# -- secrets --------------------------------------------------------------------------------------


def test_a_secret_says_where_its_value_is_read_from(tmp_path: Path) -> None:
    text = "secrets:\n  a: {file: /run/a}\n  b_2: {file: keys/b}\n  C: {env: DB_PASSWORD}\n"

    found = loaded(tmp_path, text + GOOD)

    assert found.secrets == {
        "a": FromFile(path="/run/a"),
        "b_2": FromFile(path=f"{tmp_path}/keys/b"),
        "C": FromEnv(variable="DB_PASSWORD"),
    }


@pytest.mark.parametrize(
    ("written", "sentence", "hint"),
    [
        ("hunter2", 'secret "token" does not say where its value is read from', "/run/secrets/"),
        ("{}", 'secret "token" has neither file nor env', "add file: /run/secrets/token, or"),
        ("{file: a, env: B}", 'secret "token" has both file and env', "leave one of them"),
        ("{value: x}", 'unknown key "value" in secret "token"', "a value has no place here"),
        ("{file: ~/token}", '"file" of secret "token" starts with ~', "the whole path"),
        ("{env: A=B}", '"env" of secret "token" is not the name of a variable', "GREETING"),
    ],
)
def test_a_secret_is_never_in_the_file(
    tmp_path: Path, written: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, f"secrets: {{token: {written}}}\n{GOOD}")

    assert sentence in problem.text
    assert hint in problem.hint


def test_a_wrong_secret_does_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    """Nor is who names it blamed, too."""
    text = changed(
        ("ports: [8080]", "ports: [8080]\n          env: {A: {value_from: {secret: token}}}"),
        ("    hosts:", "    port: 9090\n    hosts:"),
    )

    problems = problems_of(tmp_path, f"secrets: {{token: hunter2}}\n{text}")

    assert [pointed_at(p) for p in problems] == ["hunter2", "9090"]
