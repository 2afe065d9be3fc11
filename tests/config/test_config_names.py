"""Names and addresses."""

from collections.abc import Callable
from ipaddress import IPv4Network

import pytest

from trafficmgr.config import names, pools
from trafficmgr.config.problems import UnfitError
from trafficmgr.core.fleet import _next_free  # the allocator that the count has to agree with


@pytest.mark.parametrize("text", ["a", "shop", "shop-2", "a" * 40])
def test_names_can_be_parts_of_paths(text: str) -> None:
    assert names.name(text) == text


@pytest.mark.parametrize("text", ["", "Shop", "2shop", "-a", "a" * 41, "a/b", "a.b", "a_b", "é", 7])
def test_other_names_are_refused(text: object) -> None:
    with pytest.raises(UnfitError, match="is not a name"):
        names.name(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("shop.apps.test", "shop.apps.test"),
        ("Shop.Apps.Test.", "shop.apps.test"),
        ("localhost", "localhost"),
        ("_sip.a-b.test", "_sip.a-b.test"),
        (f"{'a' * 63}.test", f"{'a' * 63}.test"),
    ],
)
def test_dns_names_are_lower_case_without_the_last_dot(text: str, host: str) -> None:
    assert names.dns_name(text) == host


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a b.test", "is not a DNS name"),
        ("a..test", "is not a DNS name"),
        ("-a.test", "is not a DNS name"),
        (f"{'a' * 64}.test", "is not a DNS name"),
        (".".join(["abcdefg"] * 33), "is not a DNS name"),
        ("http://a.test/", "is not a DNS name"),
        ("a.test:8080", "has a port"),
        ("127.0.0.1", "is an address"),
        ("::1", "is an address"),
        ("*.a.test", "names many"),
        ("münchen.test", "has letters that DNS can't carry"),
    ],
)
def test_what_dns_cannot_hold_is_refused(text: str, part: str) -> None:
    with pytest.raises(UnfitError, match=part):
        names.dns_name(text)


def test_a_name_with_other_letters_gets_its_punycode() -> None:
    with pytest.raises(UnfitError) as caught:
        names.dns_name("münchen.test")

    assert caught.value.hint == "write xn--mnchen-3ya.test"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("*.apps.test", "*.apps.test"),
        ("*.Apps.Test.", "*.apps.test"),
        ("*.test", "*.test"),
        ("Shop.test", "shop.test"),
    ],
)
def test_a_host_may_be_a_wildcard_for_its_first_label(text: str, host: str) -> None:
    assert names.host(text) == host
    assert names.is_wildcard(host) == text.startswith("*")


@pytest.mark.parametrize(
    ("text", "predicate", "hint"),
    [
        ("*", "not its whole first label", "write *.apps.test"),
        ("*.", "is not a DNS name", "such as shop.apps.test"),
        ("*.*.test", "not its whole first label", "write *.test"),
        ("a*.test", "not its whole first label", "write *.test"),
        ("shop.*.test", "not its whole first label", "write *.test"),
        ("*.a b", "is not a DNS name", "labels of letters"),
        (7, "is not a DNS name", "such as shop"),
    ],
)
def test_no_other_star_is_a_host(text: object, predicate: str, hint: str) -> None:
    with pytest.raises(UnfitError) as caught:
        names.host(text)

    assert predicate in caught.value.predicate
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ],
)
def test_a_network_may_be_one_address(text: str, network: str) -> None:
    assert names.network(text) == network


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("10.0.0.0/33", 'such as "10.0.0.0/8"'),
        ("private", 'such as "10.0.0.0/8"'),
        (10, 'such as "10.0.0.0/8"'),
    ],
)
def test_what_is_no_network_says_what_to_write(text: object, hint: str) -> None:
    with pytest.raises(UnfitError) as caught:
        names.network(text)

    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("nginx", "docker.io/library/nginx", "latest"),
        ("shop/web:2", "docker.io/shop/web", "2"),
        ("index.docker.io/nginx", "docker.io/library/nginx", "latest"),
        ("127.0.0.1:5000/demo/web", "127.0.0.1:5000/demo/web", "latest"),
        ("localhost/web:v1", "localhost/web", "v1"),
        ("registry.example.com/shop/web:stable", "registry.example.com/shop/web", "stable"),
    ],
)
def test_images_are_read_as_docker_reads_them(text: str, repository: str, tag: str) -> None:
    assert names.image(text) == names.Image(repository, tag)


def test_a_pinned_image_is_not_part_of_this_version() -> None:
    with pytest.raises(UnfitError, match="pinned to a digest, which is not part") as caught:
        names.image(f"shop/web:2@sha256:{'0' * 64}")

    assert caught.value.hint == "write the tag to follow: shop/web:2"


@pytest.mark.parametrize("text", ["Team/web", "web:", "http://a/b", "", "a b", 7, "web@sha256:1"])
def test_what_is_no_image_is_refused(text: object) -> None:
    with pytest.raises(UnfitError):
        names.image(text)


@pytest.mark.parametrize(
    ("text", "registry"),
    [
        ("registry.example.com", "registry.example.com"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("localhost", "localhost"),
    ],
)
def test_registries_are_named_as_in_references(text: str, registry: str) -> None:
    assert names.registry(text) == registry


@pytest.mark.parametrize("text", ["https://registry.example.com/v2/", "registry", "a b", 7])
def test_what_is_no_registry_is_refused(text: object) -> None:
    with pytest.raises(UnfitError):
        names.registry(text)


@pytest.mark.parametrize("text", ["127.0.0.1:5300", "[::1]:53", "0.0.0.0:80", "[::]:8080"])
def test_an_address_is_given_back_as_it_was_written(text: str) -> None:
    assert str(names.listen_address(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("127.0.0.1", 'write "127.0.0.1:8080"'),
        (":8080", 'write "127.0.0.1:8080"'),
        ("::1:53", 'write "127.0.0.1:53" or "[::1]:53"'),
        ("[::1]", 'write "[::1]:8080"'),
        ("localhost:80", 'write "127.0.0.1:80"'),
        ("127.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:70000", "1 to 65535"),
        ("shop.test:80", 'such as "192.0.2.10"'),
        (8080, 'write "127.0.0.1:8080"'),
    ],
)
def test_what_is_no_address_says_what_to_write(text: object, hint: str) -> None:
    with pytest.raises(UnfitError) as caught:
        names.listen_address(text)

    assert hint in caught.value.hint or hint in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "127.77.3.0/24",
        "10.213.0.0/16",
        "172.31.0.0/20",
        "192.168.9.0/24",
        "100.64.0.0/16",
        "198.19.7.0/24",
    ],
)
def test_a_pool_is_on_loopback_or_private(text: str) -> None:
    assert pools.pool(text) == text


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("8.8.0.0/16", "is neither on loopback nor private", "10.213.0.0/16"),
        ("172.32.0.0/16", "is neither on loopback nor private", "127.77.0.0/16"),
        ("127.77.0.0/25", "has fewer than 256 addresses", "127.77.0.0/24"),
        ("10.1.2.128/25", "has fewer than 256 addresses", "10.1.2.0/24"),
        ("127.77.0.1/16", "is an address inside a network", "write 127.77.0.0/16"),
        ("10.1.2.3/16", "is an address inside a network", "write 10.1.0.0/16"),
        ("127.64.0.0/10", "keeps more than 65536 addresses from others", "127.77.0.0/16"),
        ("10.0.0.0/8", "keeps more than 65536 addresses from others", "10.213.0.0/16"),
        ("127.0.0.0/16", "contains 127.0.0.1", "127.77.0.0/16"),
        ("127.77.0.0", "has fewer than 256 addresses", "127.77.0.0/24"),
        ("::1/64", "is not an IPv4 network", "127.77.0.0/16"),
        (127, "is not a network", "127.77.0.0/16"),
    ],
)
def test_another_pool_is_refused(text: object, part: str, hint: str) -> None:
    with pytest.raises(UnfitError, match=part) as caught:
        pools.pool(text)

    assert hint in caught.value.hint


@pytest.mark.parametrize("written", ["127.77.0.0/24", "10.9.0.0/23", "10.9.0.0/20"])
def test_a_pool_has_as_many_addresses_as_are_given_out(written: str) -> None:
    network, used, cursor = IPv4Network(written), set[str](), 0

    while found := _next_free(network, cursor, used):
        cursor, address = found
        used.add(address)

    assert pools.usable(network) == len(used)
    assert str(network[-2]) not in used


@pytest.mark.parametrize("text", ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375"])
def test_an_engine_answers_at_a_socket(text: str) -> None:
    assert names.docker_host(text) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("/run/podman/podman.sock", "write unix:///run/podman/podman.sock"),
        ("unix://run/docker.sock", "write unix:///run/docker.sock"),
        ("unix://", "write unix:///var/run/docker.sock"),
        ("tcp://docker", "write tcp://docker:2375"),
        ("tcp://docker:2375/v1.41", "write tcp://docker:2375"),
        ("tcp://me@docker:2375", "write tcp://docker:2375"),
        ("ssh://docker", "write unix:///var/run/docker.sock"),
        ("docker", "write unix:///var/run/docker.sock"),
        (7, "write unix:///var/run/docker.sock"),
    ],
)
def test_what_is_no_engine_says_what_to_write(text: object, hint: str) -> None:
    with pytest.raises(UnfitError) as caught:
        names.docker_host(text)

    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("pause", "docker.io/library/pause:latest"),
        ("127.0.0.1:5000/infra/pause:3.9", "127.0.0.1:5000/infra/pause:3.9"),
        (f"r.test/pause@sha256:{'0' * 64}", f"r.test/pause@sha256:{'0' * 64}"),
    ],
)
def test_the_pause_image_is_whole_and_may_be_pinned(text: str, whole: str) -> None:
    assert names.pause_image(text) == whole
    with pytest.raises(UnfitError):
        names.pause_image("Team/pause")


@pytest.mark.parametrize("text", ["web", "1000", "1000:1000", "www-data:adm", "_apt", "0"])
def test_a_user_is_a_name_or_number_or_both(text: str) -> None:
    assert names.user(text) == text


def test_a_user_may_stand_without_quotes() -> None:
    assert names.user(1000) == "1000"


@pytest.mark.parametrize(
    "text", [-1, True, "", "a b", "a:b:c", ":1", "1:", "é", 2**31, "1:2147483648"]
)
def test_what_is_no_user_is_refused(text: object) -> None:
    with pytest.raises(UnfitError):
        names.user(text)


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (names.secret, "db_password.v2", "-a"),
        (names.secret, "a" * 64, "a" * 65),
        (names.secret, "Token", "a/b"),
        (names.file_name, "tls.key", "../tls.key"),
        (names.file_name, "..data", ".."),
        (names.file_name, "a" * 128, "a" * 129),
        (names.file_name, "_", "a b"),
    ],
)
def test_secrets_and_their_files_have_plain_names(
    read: Callable[[object], str], good: str, bad: str
) -> None:
    assert read(good) == good
    with pytest.raises(UnfitError):
        read(bad)


def test_a_file_in_a_folder_is_told_its_bare_name() -> None:
    with pytest.raises(UnfitError) as caught:
        names.file_name("/etc/tls.key")

    assert caught.value.hint.endswith(": tls.key")


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (names.mailbox, "hostmaster@apps.test", "apps.test"),
        (names.mailbox, "host.master@apps.test", "@apps.test"),
        (names.ip, "192.0.2.10", "192.0.2.256"),
        (names.ip, "2001:db8::1", "shop.apps.test"),
    ],
)
def test_mailboxes_and_addresses(read: Callable[[object], str], good: str, bad: str) -> None:
    assert read(good) == good
    with pytest.raises(UnfitError):
        read(bad)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9090/path?query=x:y",
        "https://hooks.apps.test",
        "http://[::1]:80/",
        "http://localhost/%20",
    ],
)
def test_a_url_is_taken_as_it_is(text: str) -> None:
    assert names.url(text) == text


@pytest.mark.parametrize(
    ("text", "predicate", "hint"),
    [
        ("127.0.0.1:9090/x", "is not a URL", "such as http://"),
        ("/x", "is not a URL of http", "such as http://"),
        ("ftp://a.test/", "is not a URL of http", "such as http://"),
        ("unix:///run/x.sock", "is not a URL of http", "such as http://"),
        ("http:///x", "has no host", "such as http://"),
        ("http://[::1/x", "is not a URL", "such as http://"),
        ("http://a.test:99999/", "is not a URL", "such as http://"),
        ("http://a.test:0/", "has a port that does not exist", "from 1 to 65535"),
        ("http://ci:secret@a.test/", "has a user or a password", "journaled and shown"),
        ("http://a.test/x#y", "has a #", "write http://a.test/x"),
        ("http://a.test/a b", "characters that a request can't carry", "%20"),
        ("http://a.test/é", "characters that a request can't carry", "%20"),
        (7, "is not a URL", "such as http://"),
        ("", "is not a URL", "such as http://"),
    ],
)
def test_what_is_no_url_says_what_to_write(text: object, predicate: str, hint: str) -> None:
    with pytest.raises(UnfitError, match=predicate) as caught:
        names.url(text)

    assert hint in caught.value.hint
