"""Keys, values, and what must hold between them. Each test breaks one thing in a good file."""

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

SHOP = "    hosts: [shop.apps.test]\n"
PORTS = "ports: [8080]"


def in_endpoint(line: str) -> str:
    return with_lines(line, after="hosts: [shop.apps.test]")


def in_container(line: str) -> str:
    return with_lines(line, after=PORTS)


# -- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "sentence", "hint"),
    [
        (f"worker: 2\n{GOOD}", "worker", "at the top level", 'did you mean "workers"?'),
        (in_endpoint("host: [a]"), "host", 'in endpoint "shop"', 'did you mean "hosts"?'),
        (in_endpoint("TTL: 5s"), "TTL", 'in endpoint "shop"', 'did you mean "ttl"?'),
        (
            in_endpoint("replica: 3"),
            "replica",
            'in endpoint "shop"',
            'did you mean "replicas"? it belongs to "group"',
        ),
        (in_container("evn: {}"), "evn", 'in container "web"', 'did you mean "env"?'),
        (in_endpoint("drain: {htp: 1s}"), "htp", 'in "drain" of endpoint "shop"', '"http"?'),
        (in_endpoint("zzz: 1"), "zzz", 'in endpoint "shop"', "known here: hosts, ttl, "),
        (
            f"registries: {{r.test: {{password: x}}}}\n{GOOD}",
            "password",
            'in registry "r.test"',
            "password_file",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_one(
    tmp_path: Path, text: str, key: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert problem.text == f'unknown key "{key}" {sentence}'
    assert pointed_at(problem) == key
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (changed(("listen:\n", "listen:\n  admin: {address: x}\n")), "admin"),
        (in_endpoint("routing: weighted"), "routing"),
        (in_endpoint("targets: []"), "targets"),
        (in_endpoint("health: {}"), "health"),
        (in_endpoint("rollout: {approval: {}}"), "approval"),
        (in_endpoint("rollout: {freeze: {}}"), "freeze"),
        (in_endpoint("update: {signatures: []}"), "signatures"),
        (in_container("startup: {}"), "startup"),
        (changed(("ns1.apps.test]}", "ns1.apps.test], records_file: x}")), "records_file"),
    ],
)
def test_a_key_of_a_later_version_is_no_typing_mistake(tmp_path: Path, text: str, key: str) -> None:
    problem = only_problem(tmp_path, text)

    assert problem.text.startswith(f"`{key}` in ")
    assert problem.text.endswith(" is not part of this version yet")
    assert (pointed_at(problem), problem.hint) == (key, "remove it")


@pytest.mark.parametrize(
    ("text", "value", "hint"),
    [
        (f"runtime: kubernetes\n{GOOD}", "kubernetes", "write embedded or docker"),
        (f"runtime: {{kind: kubernetes}}\n{GOOD}", "kubernetes", "write embedded or docker"),
        (with_lines("rootfs: image", after="replicas: 2"), "image", "write host"),
    ],
)
def test_a_value_of_a_later_version_is_no_typing_mistake(
    tmp_path: Path, text: str, value: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert problem.text.endswith(f": `{value}` is not part of this version yet")
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        (changed((SHOP, "")), 'endpoint "shop" has no "hosts"', 'add hosts: ["shop.apps.test"]'),
        (changed((", ns: [ns1.apps.test]", "")), 'zone "apps.test" has no "ns"', "add ns: "),
        (
            changed(("          image: registry.example.com/shop/web:stable\n", "")),
            'container "web" has no "image"',
            "add image: registry.example.com/shop/web:stable",
        ),
        (GOOD.partition("endpoints")[0], 'the file has no "endpoints"', "add endpoints: "),
    ],
)
def test_a_missing_key_comes_with_an_example(
    tmp_path: Path, text: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert problem.text == sentence
    assert problem.hint.startswith(hint)


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        (changed(("replicas: 2", "replicas: 0")), "is too small", "the smallest is 1"),
        (changed(("replicas: 2", 'replicas: "2"')), "is not a whole number", "without quotes: 2"),
        (changed(("replicas: 2", "replicas: true")), "is not a whole number", "write 2"),
        (changed(("[8080]", "[80800]")), "is too large", "the largest is 65535"),
        (changed(("[8080]", "8080")), "is not a list", "write [8080]"),
        (changed((": [shop.apps.test]", ": shop.apps.test")), "is not a list", "write [shop."),
        (changed((": [shop.apps.test]", ": []")), "is empty", 'write ["shop.apps.test"]'),
        (in_endpoint("drain: 5s"), "is not a mapping", "indented"),
        (in_endpoint("publish: both"), "is not a word that it takes", "write proxy or groups"),
        (in_endpoint("max_revisions: 1"), "is too small", "the smallest is 2"),
        (in_container("resources: {cpu: 0}"), "is too small", "more than 0"),
        (in_container("resources: {cpu: lots}"), "is not a number", "write 0.5"),
        (in_container("resources: {memory: 256}"), "has no unit", "write 256MiB"),
        (in_container("working_dir: app"), "is not an absolute path", "such as /app"),
        (in_container("command: ./serve --verbose"), "is not a list", "write [./serve --verbose]"),
        (in_container("command: [serve, 8080]"), "is not text", 'in quotes: "8080"'),
        (in_container("env: {A=B: c}"), "is not the name of a variable", "GREETING"),
        (in_container("readiness: {http: {path: up}}"), "is not a path", "such as /healthz"),
        (in_container("readiness: {tcp: {}, every: 0s}"), "is zero", "write at least 1ms"),
        (f"workers: 0\n{GOOD}", "is not a number of workers", "write auto"),
        (f"workers: yes\n{GOOD}", "is not a number of workers", "write auto"),
        (f"state_dir: ~/state\n{GOOD}", "starts with ~", "write the whole path"),
        (f"address_pool: 10.0.0.0/16\n{GOOD}", "is not on loopback", "127.77.0.0/16"),
        (f"registries: {{r.test: {{insecure: 1}}}}\n{GOOD}", "is neither true nor", "true or"),
        (changed(("  shop:", "  Shop_1:")), "is not a name", ": shop"),
    ],
)
def test_a_value_that_does_not_fit_says_what_to_write(
    tmp_path: Path, text: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert sentence in problem.text
    assert hint in problem.hint


def test_a_name_that_does_not_fit_is_pointed_at_itself(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("  shop:", "  Shop_1:")))

    assert problem.text == 'endpoint "Shop_1" is not a name'
    assert pointed_at(problem) == "Shop_1"


@pytest.mark.parametrize("number", ["0", "-1", "1001", "two", "true", "1.5"])
def test_at_least_one_endpoint_may_be_rolled_out(tmp_path: Path, number: str) -> None:
    problem = only_problem(tmp_path, f"max_concurrent: {number}\n{GOOD}")

    assert problem.text.startswith('"max_concurrent" is ')
    assert pointed_at(problem) == number


# -- what must hold between them ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (in_endpoint("port: 9090"), "is 9090, which no container declares"),
        (changed(("[8080]", "[]")), "has no port"),
        (changed(("[8080]", "[8080, 9090]")), "does not say which of its ports"),
        (changed(("[8080]", "[8080, 8080]")), "port 8080 of container"),
        (in_container("readiness: {every: 1s}"), "does not say what to look at"),
        (in_container("readiness: {http: {}, tcp: {}}"), "has both http and tcp"),
    ],
)
def test_one_port_is_fronted(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in problems_of(tmp_path, text)[0].text


def test_a_group_without_containers_is_refused(tmp_path: Path) -> None:
    text = GOOD.partition("containers:")[0] + "containers: []\n"

    assert only_problem(tmp_path, text).text == 'group of endpoint "shop" has no container'


def test_with_several_ports_the_probe_must_name_its_own(tmp_path: Path) -> None:
    text = changed((PORTS, "ports: [8080, 9090]\n          readiness: {http: {}}"))
    text = text.replace(SHOP, f"{SHOP}    port: 8080\n")

    problem = only_problem(tmp_path, text)

    assert problem.text == '"readiness" of container "web" does not say which port to look at'
    assert pointed_at(problem) == "http"


def test_a_host_leads_to_one_endpoint(tmp_path: Path) -> None:
    text = GOOD + GOOD.partition("endpoints:\n")[2].replace("  shop:", "  api:")

    problem = only_problem(tmp_path, text.replace("[shop.apps", "[SHOP.apps", 1))

    assert problem.text == 'host "shop.apps.test" of endpoint "api" already leads to "shop"'
    assert problem.span.line == 16


def test_hosts_that_dns_answers_with_groups_lie_in_a_zone(tmp_path: Path) -> None:
    other = (": [shop.apps.test]", ": [shop.xapps.test]")
    direct = (": [shop.apps.test]", ": [shop.xapps.test]\n    publish: groups")

    problem = only_problem(tmp_path, changed(direct))

    assert problem.text.startswith('host "shop.xapps.test" lies in no zone')
    assert problem.hint == "add a zone: {name: xapps.test, ns: [ns1.xapps.test]}"
    assert loaded(tmp_path, changed(other)).endpoints


def test_hosts_are_not_blamed_for_zones_that_are_wrong_themselves(tmp_path: Path) -> None:
    text = in_endpoint("publish: groups").replace("name: apps.test", "name: '-'")

    assert only_problem(tmp_path, text).text == '"name" of zone "-" is not a DNS name'


def test_loopback_groups_are_published_by_loopback_dns_only(tmp_path: Path) -> None:
    away = in_endpoint("publish: groups").replace('dns: ["127.0.0.1', 'dns: ["192.0.2.1')
    nowhere = in_endpoint("publish: groups").replace('  dns: ["127.0.0.1:5300"]\n', "")

    assert "192.0.2.1:5300 answers DNS for other machines" in only_problem(tmp_path, away).text
    assert "DNS is answered nowhere" in only_problem(tmp_path, nowhere).text


def test_the_proxy_must_listen_somewhere(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(('  http: ["127.0.0.1:8080"]\n', "")))

    assert "the proxy, which listens nowhere" in problem.text


def test_a_wildcard_listener_must_say_what_to_advertise(tmp_path: Path) -> None:
    text = changed(('http: ["127.0.0.1:8080"]', 'http: ["0.0.0.0:80", "127.0.0.1:81"]'))

    problem = only_problem(tmp_path, text)

    assert pointed_at(problem) == '"0.0.0.0:80"'
    assert loaded(tmp_path, f"advertise: [192.0.2.10]\n{text}").advertise == ("192.0.2.10",)
    assert "0.0.0.0 is no address" in only_problem(tmp_path, f"advertise: [0.0.0.0]\n{text}").text


def test_the_listen_addresses_are_advertised_by_default(tmp_path: Path) -> None:
    text = changed(('["127.0.0.1:8080"]', '["127.0.0.1:8080", "127.0.0.1:81", "[::1]:80"]'))

    assert loaded(tmp_path, text).advertise == ("127.0.0.1", "::1")


def test_an_address_is_listened_at_once(tmp_path: Path) -> None:
    problem = only_problem(
        tmp_path, changed(('http: ["127.0.0.1:8080"', 'http: ["127.0.0.1:5300"'))
    )

    assert problem.text.startswith("127.0.0.1:5300 is listened at twice")


def test_the_pool_holds_every_group_that_may_exist(tmp_path: Path) -> None:
    fits = changed(("replicas: 2", "replicas: 126")).replace(
        "    group:", "    max_revisions: 2\n    group:"
    )
    too_many = fits.replace("replicas: 126", "replicas: 127")
    pool = "address_pool: 127.77.0.0/24\n"

    problem = only_problem(tmp_path, pool + too_many)

    assert problem.text == "address_pool has 253 addresses, but 254 groups may exist at once"
    assert loaded(tmp_path, pool + fits).address_pool == "127.77.0.0/24"


def test_nobody_listens_inside_the_pool(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(('http: ["127.0.0.1', 'http: ["127.77.0.1')))

    assert problem.text.startswith("127.77.0.1:8080 lies in address_pool")


def test_a_zone_is_there_once(tmp_path: Path) -> None:
    text = with_lines("- {name: Apps.Test., ns: [ns2.apps.test]}", after="[ns1.apps.test]}")

    problem = only_problem(tmp_path, text.replace("    - {name: Apps", "  - {name: Apps"))

    assert problem.text == 'zone "apps.test" is there twice'


@pytest.mark.parametrize("key", ["username: ci", "password_file: secret"])
def test_user_and_password_go_together(tmp_path: Path, key: str) -> None:
    problem = only_problem(tmp_path, f"registries: {{r.test: {{{key}}}}}\n{GOOD}")

    assert problem.text.startswith('registry "r.test" has a ')


def test_there_is_something_to_serve(tmp_path: Path) -> None:
    text = GOOD.partition("endpoints:")[0] + "endpoints: {}\n"

    assert only_problem(tmp_path, text).text == "there is no endpoint"
