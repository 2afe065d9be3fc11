"""The files of certificates: looked at before anybody needs them, each with its place."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from support.config_support import changed, pointed_at

from trafficmgr.config.load import ConfigError, Look, load
from trafficmgr.config.problems import Problem

CONFIG = "tls: {certificates: [{certificate: apps.pem, key: apps.key}]}\n" + changed(
    ("listen:\n", 'listen:\n  https: ["127.0.0.1:8443"]\n')
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config, its certificate and its key, and a pair that is another's."""
    (tmp_path / "shop.yaml").write_text(CONFIG)
    for name in ("apps", "other"):
        pem, key = pair()
        (tmp_path / f"{name}.pem").write_bytes(pem)
        (tmp_path / f"{name}.key").write_bytes(key)
    return tmp_path


def pair(encryption: KeySerializationEncryption | None = None) -> tuple[bytes, bytes]:
    """Return a certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "apps.test")])
    made_at = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made_at)
        .not_valid_after(made_at + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    how = encryption or NoEncryption()
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return certificate.public_bytes(Encoding.PEM), written


def problem(folder: Path, look: Look = Look.needed) -> Problem:
    """Return the one thing that is wrong with the config in a folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder / "shop.yaml", certificates=look)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize("look", Look)
def test_a_certificate_with_its_key_is_in_order(folder: Path, look: Look) -> None:
    (found,) = load(folder / "shop.yaml", certificates=look).front.certificates

    assert found.certificate == str(folder / "apps.pem")
    assert found.key == str(folder / "apps.key")


def test_both_may_be_in_one_file(folder: Path) -> None:
    both = (folder / "apps.pem").read_bytes() + (folder / "apps.key").read_bytes()
    (folder / "apps.pem").write_bytes(both)
    (folder / "shop.yaml").write_text(CONFIG.replace("apps.key", "apps.pem"))

    assert load(folder / "shop.yaml", certificates=Look.needed).front.certificates


def test_the_key_of_another_is_noticed_before_anybody_needs_it(folder: Path) -> None:
    (folder / "other.key").rename(folder / "apps.key")

    for look in (Look.needed, Look.there):
        found = problem(folder, look)
        assert "is not the key of the first certificate in" in found.text
        assert pointed_at(found) == "apps.key"


def test_the_certificate_comes_before_those_above_it(folder: Path) -> None:
    apps, other = ((folder / f"{name}.pem").read_bytes() for name in ("apps", "other"))
    (folder / "apps.pem").write_bytes(other + apps)

    assert "the certificate itself comes first" in problem(folder).hint

    (folder / "apps.pem").write_bytes(apps + other)
    assert load(folder / "shop.yaml", certificates=Look.needed).front.certificates


@pytest.mark.parametrize("name", ["apps.pem", "apps.key"])
def test_a_file_that_is_missing_is_refused_only_where_it_is_needed(folder: Path, name: str) -> None:
    """A file may be checked where no private key has any place."""
    (folder / name).unlink()

    found = problem(folder)

    assert found.text == f"{folder / name} can't be read: No such file or directory"
    assert pointed_at(found) == name
    for look in (Look.there, Look.never):
        assert load(folder / "shop.yaml", certificates=look).front.certificates


def test_what_was_accepted_is_not_looked_at_again(folder: Path) -> None:
    (folder / "other.key").rename(folder / "apps.key")

    assert load(folder / "shop.yaml", certificates=Look.never).front.certificates


@pytest.mark.parametrize(
    ("name", "data", "sentence", "hint"),
    [
        ("apps.pem", b"", "has no certificate in PEM form", "BEGIN CERTIFICATE"),
        ("apps.key", b"\x30\x82", "has no private key in PEM form", "PRIVATE KEY"),
        ("apps.key", pair(BestAvailableEncryption(b"x"))[1], "by a password", "openssl pkey -in"),
        (
            "apps.pem",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "can't be used",
            "as openssl makes them",
        ),
    ],
)
def test_a_file_that_no_worker_could_use_says_what_to_do(
    folder: Path, name: str, data: bytes, sentence: str, hint: str
) -> None:
    (folder / name).write_bytes(data)

    found = problem(folder)

    assert sentence in found.text
    assert hint in found.hint


def test_each_certificate_has_its_own_place(folder: Path) -> None:
    second = "{certificate: other.pem, key: absent.key}]"
    (folder / "shop.yaml").write_text(CONFIG.replace("apps.key}]", f"apps.key}}, {second}"))

    assert pointed_at(problem(folder)) == "absent.key"


def test_a_certificate_without_a_key_is_named(folder: Path) -> None:
    (folder / "shop.yaml").write_text(CONFIG.replace(", key: apps.key", ""))

    assert problem(folder).text == 'certificate 1 has no "key"'
