"""`http`, `affinity`, hosts that are shared or wild: what they mean, and what they can't be."""

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

from trafficmgr.config.load import load
from trafficmgr.config.settings import EndpointConfig
from trafficmgr.core.model import Affinity, EndpointSettings
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

FOLDER = Path(__file__).parents[2] / "config"
HOSTS = "hosts: [shop.apps.test]"
HTTPS = ('http: ["127.0.0.1:8080"]', 'https: ["127.0.0.1:8443"]')
TLS = "tls: {certificates: [{certificate: absent.pem, key: absent.key}]}\n"

POLICY = """\
http:
      paths: [/api/, /img]
      balance: least-requests
      max_body: 1MiB
      connect_timeout: 1s
      response_timeout: 2s
      stream_idle: 4s
      tunnel_idle: 5s
      max_requests: 6
      queue: {limit: 7, timeout: 8s}
      hold: {timeout: 9s, limit: 10}
      retry_budget: 11%
      ejection: {failures: 12, base: 13s, longest: 14s}
      pins: [{header: X-Canary, value: 1, to: candidate}, {cookie: Old, to: stable}]"""

FRONT = """\
http:
  request_line: 1KiB
  head: 2KiB
  fields: 12
  head_timeout: 3s
  idle: 4s
  max_connections: 5
  trusted_proxies: [10.0.0.0/8, "::1"]
  request_id: false
  via: true
  access_log: {path: logs/access, format: combined}
"""


def in_endpoint(*lines: str) -> str:
    return with_lines(*lines, after=HOSTS)


def policy(folder: Path, *lines: str) -> HttpPolicy:
    return shop(folder, *lines).http


def shop(folder: Path, *lines: str) -> EndpointSettings:
    return loaded(folder, in_endpoint(*lines)).endpoints["shop"].settings


def two(one: str, other: str, hosts: str = "[shop.apps.test]") -> str:
    """Return a file with a second endpoint; both have these hosts, and a line each."""
    again = GOOD.partition("endpoints:\n")[2].replace("  shop:", "  api:")
    sections = [GOOD.partition("endpoints:\n")[2], again]
    written = [
        section.replace("hosts: [shop.apps.test]", f"hosts: {hosts}\n    {line}")
        for section, line in zip(sections, (one, other), strict=True)
    ]
    return GOOD.partition("endpoints:\n")[0] + "endpoints:\n" + "".join(written)


# -- what arrives ---------------------------------------------------------------------------------


def test_every_key_of_http_reaches_the_core(tmp_path: Path) -> None:
    """Each value differs from its default, so that a forgotten or crossed key shows."""
    assert policy(tmp_path, POLICY) == HttpPolicy(
        paths=("/api", "/img"),
        balance=Balance.least_requests,
        max_body_bytes=1024 * 1024,
        connect_s=1,
        response_head_s=2,
        stream_idle_s=4,
        tunnel_idle_s=5,
        max_requests=6,
        queue_limit=7,
        queue_s=8,
        hold_s=9,
        hold_limit=10,
        retry_budget_pct=11,
        ejection=Ejection(failures=12, base_s=13, longest_s=14),
        pins=(
            Pin(header="x-canary", value="1", to=PinTo.candidate),
            Pin(cookie="Old", to=PinTo.stable),
        ),
    )


def test_what_is_left_out_is_what_the_core_says(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD)

    assert found.endpoints["shop"].settings.http == HttpPolicy()
    assert found.front == Front()
    assert found.listen_https == ()


@pytest.mark.parametrize(
    ("written", "ejection"),
    [("true", Ejection()), ("false", None), ("{base: 1s}", Ejection(base_s=1))],
)
def test_ejection_may_be_switched_off(
    tmp_path: Path, written: str, ejection: Ejection | None
) -> None:
    assert policy(tmp_path, f"http: {{ejection: {written}}}").ejection == ejection


def test_every_key_of_the_front_reaches_the_core(tmp_path: Path) -> None:
    assert loaded(tmp_path, FRONT + GOOD).front == Front(
        request_line_bytes=1024,
        head_bytes=2048,
        fields=12,
        head_s=3,
        idle_s=4,
        max_connections=5,
        trusted_proxies=("10.0.0.0/8", "::1/128"),
        names_requests=False,
        has_via=True,
        access_log=AccessLog(path=str(tmp_path / "logs" / "access"), format="combined"),
    )


def test_the_reference_shows_how_http_is_served() -> None:
    found = load(FOLDER / "example.yaml")

    shop: EndpointConfig = found.endpoints["shop"]
    assert shop.settings.http == HttpPolicy(
        paths=("/shop", "/cart"),
        balance=Balance.least_requests,
        max_body_bytes=10 * 1024 * 1024,
        max_requests=100,
        redirects_to_https=True,
        pins=(
            Pin(cookie="preview", to=PinTo.candidate),
            Pin(header="x-canary", value="never", to=PinTo.stable),
        ),
    )
    api = found.endpoints["api"].settings
    assert (api.affinity, api.http.affinity_name) == (Affinity.cookie, "visitor")
    pair = ("/etc/trafficmgr/apps.test.pem", "/etc/trafficmgr/apps.test.key")
    assert found.front == Front(
        trusted_proxies=("10.0.0.0/8", "2001:db8::7/128"),
        access_log=AccessLog(path=str(FOLDER / "access.log")),
        certificates=(Certificate(certificate=pair[0], key=pair[1]),),
    )


# -- values and keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "pointed", "sentence", "hint"),
    [
        ("paths: []", "[]", "is empty", 'write ["/api"]'),
        ("paths: [api]", "api", "is not a path", "such as"),
        ("paths: [/]", "/", "is every path", "leave paths out"),
        ("paths: [/a//b/]", "/a//b/", "has empty or dotted segments", "write /a/b"),
        ("paths: [/a/../b]", "/a/../b", "has empty or dotted segments", "write /a/b"),
        ("paths: ['/a?b=c']", "'/a?b=c'", "has a ?", "write /a"),
        ("paths: [/a, /b, /a/]", "/a/", 'has "/a" twice', "remove one"),
        ("balance: random", "random", "is not a word", "round-robin or least-requests"),
        ("balance: least_requests", "least_requests", "is not a word", "write least-requests"),
        ("max_body: 0", "0", "has no unit", "write 0MiB"),
        ("connect_timeout: 0s", "0s", "is zero", "at least 1ms"),
        ("stream_idle: 5", "5", "has no unit", "write 5s"),
        ("max_requests: 0", "0", "is too small", "the smallest is 1"),
        (
            "queue: {limit: 3}",
            "{limit: 3}",
            "without max_requests no request waits",
            "max_requests: ",
        ),
        ("max_requests: 1, queue: {limit: -1}", "-1", "is too small", "the smallest is 0"),
        ("hold: 30s", "30s", "is not a mapping", "indented"),
        ("retry_budget: 20", "20", "has no unit", "write 20% for per cent"),
        ("retry_budget: 101%", "101%", "is more than all", "write 100% or less"),
        ("retry_budget: 0.5%", "0.5%", "is not a whole number of per cent", "write 0%"),
        ("ejection: 5", "5", "is not a mapping", 'write {"failures": 5}'),
        ("ejection: {longest: 9s}", "9s", "is less than base", "write 10s or more"),
        ("redirect_https: 301", "301", "is neither true nor false", "write true or false"),
        (
            "pins: [{to: candidate}]",
            "{to: candidate}",
            "has neither header nor cookie",
            "add header: ",
        ),
        (
            "pins: [{header: a, cookie: b, to: stable}]",
            "{header: a, cookie: b, to: stable}",
            "has both",
            "leave one",
        ),
        ("pins: [{header: a}]", "{header: a}", 'has no "to"', "add to: candidate"),
        ("pins: [{header: a, to: new}]", "new", "is not a word", "write candidate or stable"),
        ("pins: [{header: 'a b', to: stable}]", "'a b'", "is not the name of a header", "x-user"),
        ("pins: [{header: Cookie, to: stable}]", "Cookie", "holds all cookies", "name one"),
        ("pins: [{cookie: 'a=b', to: stable}]", "'a=b'", "is not the name of a cookie", "session"),
        ("pins: [{cookie: a, value: '', to: stable}]", "''", "is empty", "any value fits"),
        ("pins: [{cookie: a, value: é, to: stable}]", "é", "a request can't carry", "plain ASCII"),
        ("pins: [{cookie: a, value: true, to: stable}]", "true", "is not text", '"true"'),
    ],
)
def test_what_http_cannot_be_says_what_to_write(
    tmp_path: Path, http: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_endpoint(f"http: {{{http}}}"))

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("http", "pointed", "sentence", "hint"),
    [
        ("request_line: 100B", "100B", "is less than browsers send", "1KiB or more"),
        ("head: 2MiB", "2MiB", "more than each of many clients", "1MiB or less"),
        ("fields: 9", "9", "is too small", "the smallest is 10"),
        ("idle: 0s", "0s", "is zero", "at least 1ms"),
        ("max_connections: 0", "0", "is too small", "the smallest is 1"),
        ("trusted_proxies: [10.1.0.0/8]", "10.1.0.0/8", "inside a network", "write 10.0.0.0/8"),
        ("trusted_proxies: any", "any", "is not a list", "write [any]"),
        ("access_log: ./access.log", "./access.log", "is not a mapping", '{"path": "./access'),
        ("access_log: {path: a, format: csv}", "csv", "is not a word", "json or combined"),
        ("access_log: {format: json}", "access_log", 'has no "path"', "add path"),
    ],
)
def test_what_the_front_cannot_be_says_what_to_write(
    tmp_path: Path, http: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, f"http: {{{http}}}\n{GOOD}")

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        (in_endpoint("path: /api"), "path", 'belongs to "http"'),
        (in_endpoint("paths: [/api]"), "paths", 'belongs to "http"'),
        (in_endpoint("tls: {}"), "tls", "tls: at the top level"),
        (in_endpoint("https: true"), "https", "listen: {https: [...]}"),
        (in_endpoint("http: {affinity: client}"), "affinity", "it stands beside http:"),
        (in_endpoint("http: {retries: 3}"), "retries", "retry_budget: 20%"),
        (in_endpoint("http: {max_body_size: 1MiB}"), "max_body_size", '"max_body"?'),
        (in_endpoint("http: {outlierDetection: {}}"), "outlierDetection", '"ejection"?'),
        (in_endpoint("affinity: {client: a}"), "client", "affinity: client"),
        (in_endpoint("affinity: {cookies: a}"), "cookies", '"cookie"?'),
        (f"http: {{max_body: 1MiB}}\n{GOOD}", "max_body", 'the "http" of an endpoint'),
        (in_endpoint("http: {via: true}"), "via", 'the "http" at the top level'),
        (changed(("listen:\n", "listen:\n  tls: {}\n")), "tls", "tls: at the top level"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_its_own(
    tmp_path: Path, text: str, key: str, hint: str
) -> None:
    problem = problems_of(tmp_path, text)[0]

    assert problem.text.startswith(f'unknown key "{key}"')
    assert pointed_at(problem) == key
    assert hint in problem.hint


# -- affinity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "affinity", "name"),
    [
        ("none", Affinity.none, ""),
        ("client", Affinity.client, ""),
        ("{cookie: JSESSIONID}", Affinity.cookie, "JSESSIONID"),
        ("{header: X-User}", Affinity.header, "x-user"),
    ],
)
def test_a_client_is_known_by_its_address_a_cookie_or_a_header(
    tmp_path: Path, written: str, affinity: Affinity, name: str
) -> None:
    found = shop(tmp_path, f"affinity: {written}")

    assert (found.affinity, found.http.affinity_name) == (affinity, name)


@pytest.mark.parametrize(
    ("written", "sentence", "hint"),
    [
        ("cookie", "is not a word", "{cookie: visitor}"),
        ("header", "is not a word", "{header: x-user}"),
        ("sticky", "is not a word", "write none or client"),
        ("5", "is not a word", "write none or client"),
        ("{}", "has neither cookie nor header", "add cookie: visitor, or write none or client"),
        ("{cookie: a, header: b}", "has both cookie and header", "leave one of them"),
        ("{cookie: 'a b'}", "is not the name of a cookie", "such as session"),
    ],
)
def test_what_is_no_affinity_says_what_to_write(
    tmp_path: Path, written: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, in_endpoint(f"affinity: {written}"))

    assert sentence in problem.text
    assert hint in problem.hint


@pytest.mark.parametrize("written", ["{cookie: a}", "{header: a}"])
def test_with_any_affinity_latency_is_not_compared(tmp_path: Path, written: str) -> None:
    lines = (f"affinity: {written}", "rollout: {gates: {compare: true}}")

    compare = shop(tmp_path, *lines).gates.compare

    assert compare is not None
    assert not compare.has_latency


# -- hosts and paths ------------------------------------------------------------------------------


def test_endpoints_share_a_host_if_their_paths_differ(tmp_path: Path) -> None:
    found = loaded(tmp_path, two("http: {paths: [/shop, /cart]}", "http: {paths: [/api]}"))
    rest = loaded(tmp_path, two("ttl: 10s", "http: {paths: [/api]}"))

    assert len(found.endpoints) == len(rest.endpoints) == 2


@pytest.mark.parametrize(
    ("lines", "pointed", "sentence", "hint"),
    [
        (
            ("ttl: 10s", "ttl: 10s"),
            "shop.apps.test",
            'already leads to "shop"',
            "part them by http: {paths",
        ),
        (
            ("http: {paths: [/b, /a]}", "http: {paths: [/x, /a/]}"),
            "/a/",
            'already leads to "shop" for /a',
            "remove one of them",
        ),
        (
            ("publish: groups", "http: {paths: [/api]}"),
            "shop.apps.test",
            "DNS can't answer with the groups of both",
            "publish: proxy for both",
        ),
        (
            ("ttl: 5s", "http: {paths: [/api]}"),
            "shop.apps.test",
            "a DNS name has one TTL",
            "write ttl: 5s for both",
        ),
    ],
)
def test_a_host_and_a_path_lead_to_one_endpoint(
    tmp_path: Path, lines: tuple[str, str], pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, two(*lines))

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


@pytest.mark.parametrize("line", ["ttl: 10s", "http: {paths: [/api]}"])
def test_a_host_is_written_once(tmp_path: Path, line: str) -> None:
    hosts = "hosts: [shop.apps.test, Shop.apps.test]"
    text = changed((HOSTS, f"{hosts}\n    {line}"))

    assert pointed_at(only_problem(tmp_path, text)) == "Shop.apps.test"


def test_a_group_that_clients_connect_to_has_no_paths(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, in_endpoint("publish: groups", "http: {paths: [/api]}"))

    assert '"paths" of endpoint "shop" need the proxy' in problem.text


def test_a_wildcard_is_a_host_like_another(tmp_path: Path) -> None:
    wild = loaded(tmp_path, changed(("[shop.apps.test]", '["*.apps.test"]')))
    direct = changed(("[shop.apps.test]", '["*.elsewhere.test"]\n    publish: groups'))

    assert wild.endpoints["shop"].settings.hosts == ("*.apps.test",)
    assert "lies in no zone" in only_problem(tmp_path, direct).text
    assert (
        'already leads to "shop"'
        in only_problem(tmp_path, two("ttl: 10s", "ttl: 10s", '["*.apps.test"]')).text
    )


def test_smoke_needs_a_host_that_has_a_preview(tmp_path: Path) -> None:
    wild = in_endpoint("rollout: {smoke: {}}").replace("[shop.apps.test]", '["*.apps.test"]')
    both = wild.replace('["*.apps.test"]', '["*.apps.test", shop.apps.test]')

    assert "a wildcard has none" in only_problem(tmp_path, wild).text
    assert loaded(tmp_path, both).endpoints["shop"].settings.smoke is not None


@pytest.mark.parametrize(
    ("path", "is_below"),
    [("/api", True), ("/api/x?y=/", True), ("/api?x", True), ("/apis", False), ("/", False)],
)
def test_smoke_asks_for_the_endpoints_own_paths(tmp_path: Path, path: str, is_below: bool) -> None:
    smoke = f'rollout: {{smoke: {{requests: [{{path: "{path}"}}]}}}}'
    text = in_endpoint("http: {paths: [/api]}", smoke)

    if is_below:
        assert loaded(tmp_path, text).endpoints["shop"].settings.smoke is not None
    else:
        problem = only_problem(tmp_path, text)
        assert f"asks for {path}, which is not its own" in problem.text
        assert problem.hint == "write requests: [{path: /api}]"


# -- who listens ----------------------------------------------------------------------------------


def test_an_endpoint_may_be_served_over_tls_alone(tmp_path: Path) -> None:
    found = loaded(tmp_path, TLS + changed(HTTPS))

    assert list(map(str, found.listen_https)) == ["127.0.0.1:8443"]
    assert (found.listen_http, found.advertise) == ((), ("127.0.0.1",))


@pytest.mark.parametrize(
    ("text", "pointed", "sentence", "hint"),
    [
        (changed(HTTPS), "https", "has no certificate to show", "add tls: "),
        (TLS + GOOD, "tls", "nothing listens for TLS", "add listen: {https: "),
        (
            in_endpoint("http: {redirect_https: true}"),
            "redirect_https",
            "leads to https, which is served nowhere",
            "add listen: {https: ",
        ),
        (
            TLS + in_endpoint("rollout: {smoke: {}}").replace(*HTTPS),
            "smoke",
            "which listens for TLS only",
            "add listen: {http: ",
        ),
        (
            in_endpoint("publish: groups", "http: {max_requests: 1}").replace(
                f"  {HTTPS[0]}\n", ""
            ),
            "http",
            "is about the proxy, which listens nowhere",
            "or remove it",
        ),
        (
            TLS + changed((HTTPS[0], 'https: ["127.0.0.1:5300"]')),
            '"127.0.0.1:5300"',
            "is listened at twice",
            "another port",
        ),
        (
            TLS + changed((HTTPS[0], 'https: ["[::]:8443"]')),
            '"[::]:8443"',
            "is every address",
            "add advertise",
        ),
        (
            TLS + changed((HTTPS[0], 'https: ["127.77.0.1:8443"]')),
            '"127.77.0.1:8443"',
            "lies in address_pool",
            "outside of it",
        ),
    ],
)
def test_who_listens_fits_what_is_served(
    tmp_path: Path, text: str, pointed: str, sentence: str, hint: str
) -> None:
    problem = only_problem(tmp_path, text)

    assert sentence in problem.text
    assert pointed_at(problem) == pointed
    assert hint in problem.hint


def test_tls_that_is_wrong_itself_is_not_said_to_be_missing(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, "tls: {certificates: []}\n" + changed(HTTPS))

    assert problem.text == '"certificates" of "tls" is empty'
