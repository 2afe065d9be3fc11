"""Names and addresses."""

from collections.abc import Callable

import pytest

from trafficmgr.config import names
from trafficmgr.config.problems import UnfitError


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
        ("*.a.test", "not part of this version"),
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
    ("text", "part"),
    [
        ("10.0.0.0/16", "is not on loopback"),
        ("127.77.0.0/25", "has fewer than 256 addresses"),
        ("127.77.0.1/16", "is an address inside a network"),
        ("127.64.0.0/10", "keeps more than 65536 addresses from others"),
        ("127.0.0.0/16", "contains 127.0.0.1"),
        ("127.77.0.0", "has fewer than 256 addresses"),
        ("::1/64", "is not an IPv4 network"),
        (127, "is not a network"),
    ],
)
def test_a_pool_is_a_large_enough_network_on_loopback(text: object, part: str) -> None:
    assert names.loopback_pool("127.77.3.0/24") == "127.77.3.0/24"
    with pytest.raises(UnfitError, match=part):
        names.loopback_pool(text)


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
