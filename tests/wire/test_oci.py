"""References, manifests, indexes, configs and platforms."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.wire import oci
from trafficmgr.wire.images import ImageConfig
from trafficmgr.wire.oci import (
    Compression,
    Descriptor,
    Index,
    Manifest,
    OciError,
    Platform,
    Reference,
    choose_platform,
    decode_manifest,
    digest_of,
    layer_compression,
    parse_reference,
    split_repository,
)
from trafficmgr.wire.oci_config import decode_config

SHA = "sha256:" + "ab" * 32
OTHER_SHA = "sha256:" + "cd" * 32


# -- references -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("nginx", "docker.io", "library/nginx", "latest"),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27"),
        ("team/web", "docker.io", "team/web", "latest"),
        ("index.docker.io/nginx", "docker.io", "library/nginx", "latest"),
        ("host:5000", "docker.io", "library/host", "5000"),
        ("localhost/web", "localhost", "web", "latest"),
        ("localhost:5000/web", "localhost:5000", "web", "latest"),
        ("127.0.0.1:5000/team/web:v1", "127.0.0.1:5000", "team/web", "v1"),
        ("[::1]:5000/web:v1", "[::1]:5000", "web", "v1"),
        ("Registry.Example.com/a/b/c", "registry.example.com", "a/b/c", "latest"),
        ("registry.example.com/a__b/c-d.e_f:V_1.0-rc", "registry.example.com", "a__b/c-d.e_f", "V_1.0-rc"),  # noqa: E501  one case a line
    ],
)  # fmt: skip
def test_a_reference_is_read(text: str, registry: str, repository: str, tag: str) -> None:
    assert parse_reference(text) == Reference(registry=registry, repository=repository, tag=tag)


def test_a_digest_pins_and_needs_no_tag() -> None:
    pinned = parse_reference(f"registry.example.com/web@{SHA}")
    assert (pinned.tag, pinned.digest, pinned.name) == ("", SHA, "registry.example.com/web")
    assert parse_reference(f"registry.example.com/web:v1@{SHA}").tag == "v1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no name"),
        ("host.io/", "has no name"),
        ("https://host.io/web", "starts with a scheme"),
        ("Team/web", "upper case"),
        ("host.io/team/Web:v1", "upper case"),
        ("web:", "no valid tag"),
        ("web:-x", "no valid tag"),
        ("web:" + "x" * 129, "no valid tag"),
        ("web:tag/", "no host of a registry"),
        ("host.io//web", 'has "" in its name'),
        ("host.io/../web", 'has ".." in its name'),
        ("host.io/we b", 'has "we b" in its name'),
        ("host.io/web\n", "in its name"),
        ("host_1.io/web", "no host of a registry"),
        ("host.io:port/web", "no host of a registry"),
        ("-host.io/web", "no host of a registry"),
        ("web@sha256:abc", "no valid digest"),
        ("web@" + SHA.upper(), "no valid digest"),
        ("web@sha512:" + "0" * 128, "no valid digest"),
        ("host.io/" + "a" * 256, "more than 255"),
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(OciError, match=says) as caught:
        parse_reference(text)
    assert str(caught.value).startswith(f'image "{text}"')
    assert str(caught.value).endswith(".")


@settings(deadline=None, database=None)  # how fast this machine is proves nothing
@given(st.text(alphabet="aZ0._-/:@[] \n\u00e4", max_size=60))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        found = parse_reference(text)
    except OciError:
        return
    assert split_repository(found.name) == (found.registry, found.repository)
    assert ".." not in found.repository
    assert not found.repository.startswith("/")


# -- manifests and indexes ------------------------------------------------------------------------


def pointer(media_type: str = oci.OCI_LAYER_GZIP, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": SHA, "size": 7, **more}


def manifest(**changes: Any) -> bytes:
    whole = {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": pointer(oci.OCI_MANIFEST),
        "layers": [pointer()],
        **changes,
    }
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def index(*manifests: dict[str, Any], **changes: Any) -> bytes:
    whole = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": manifests, **changes}
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def test_a_manifest_is_read_and_hashed() -> None:
    body = manifest(unknownKey={"a": 1})
    read = decode_manifest(body, oci.OCI_MANIFEST, digest_of(body))

    assert isinstance(read, Manifest)
    assert (read.digest, read.media_type) == (digest_of(body), oci.OCI_MANIFEST)
    assert read.layers == (Descriptor(media_type=oci.OCI_LAYER_GZIP, digest=SHA, size=7),)


def test_docker_documents_are_read_too() -> None:
    body = manifest(mediaType=oci.DOCKER_MANIFEST)
    assert isinstance(decode_manifest(body, oci.DOCKER_MANIFEST), Manifest)
    body = index(mediaType=oci.DOCKER_LIST)
    assert isinstance(decode_manifest(body, oci.DOCKER_LIST), Index)


@pytest.mark.parametrize("content_type", ["", "application/json", oci.OCI_MANIFEST + "; x=y"])
def test_the_media_type_may_stand_in_one_place_only(content_type: str) -> None:
    """OCI makes the body's optional, and static registries send a general one."""
    assert decode_manifest(manifest(), content_type).media_type == oci.OCI_MANIFEST
    assert decode_manifest(manifest(mediaType=None), content_type).media_type == oci.OCI_MANIFEST


def test_another_digest_is_refused() -> None:
    with pytest.raises(OciError, match=f"hashes to sha256:[0-9a-f]{{64}}, but {SHA} was asked for"):
        decode_manifest(manifest(), oci.OCI_MANIFEST, SHA)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", ""),
        (b"<html></html>", "text/html"),
        (b"[]", ""),
        (b"{}", ""),
        (b'{"schemaVersion":2}', ""),
        (b"[" * 100_000, ""),
        (manifest(schemaVersion="2"), ""),
        (manifest(layers=None), ""),
        (manifest(config=None), ""),
        (manifest(manifests=[]), ""),
        (index(layers=[]), ""),
        (manifest(), oci.OCI_INDEX),
        (manifest(), oci.DOCKER_MANIFEST),
        (index(), oci.OCI_MANIFEST),
        (manifest(mediaType="application/vnd.docker.distribution.manifest.v1+json"), ""),
        (manifest(layers=[pointer(digest="sha256:../../etc/passwd")]), ""),
        (manifest(layers=[pointer(size=-1)]), ""),
        (manifest(layers=[pointer(size=2**50)]), ""),
        (manifest(layers=[pointer(size=1.5)]), ""),
        (manifest(layers=[pointer(size="7")]), ""),
        (index(pointer(oci.OCI_MANIFEST, digest="md5:0")), ""),
        (b" " * (oci.MAX_DOCUMENT_BYTES + 1), ""),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(OciError):
        decode_manifest(body, content_type)


@settings(deadline=None, database=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_an_error(body: bytes) -> None:
    with pytest.raises(OciError):
        decode_manifest(body)


# -- platforms ------------------------------------------------------------------------------------


def entry(os: str, architecture: str, variant: str = "", *, digest: str = SHA) -> Descriptor:
    platform = Platform(os=os, architecture=architecture, variant=variant)
    return Descriptor(media_type=oci.OCI_MANIFEST, digest=digest, size=7, platform=platform)


def of(*entries: Descriptor) -> Index:
    return Index(digest=SHA, media_type=oci.OCI_INDEX, manifests=entries)


ATTESTATION = entry("linux", "amd64", digest=OTHER_SHA).but(
    annotations={"vnd.docker.reference.type": "attestation-manifest"}
)
UNKNOWN = entry("unknown", "unknown", digest=OTHER_SHA)


def test_the_machines_platform_is_chosen_and_attestations_are_not() -> None:
    wanted = entry("linux", "amd64")
    among = of(UNKNOWN, ATTESTATION, entry("windows", "amd64"), entry("linux", "arm64"), wanted)
    assert choose_platform(among, os="linux", architecture="amd64") is wanted


def test_the_same_variant_comes_before_none_and_none_before_another() -> None:
    v6, v7, plain = (entry("linux", "arm", variant) for variant in ("v6", "v7", ""))
    assert choose_platform(of(v6, plain, v7), os="linux", architecture="arm", variant="v7") is v7
    assert choose_platform(of(v6, plain), os="linux", architecture="arm", variant="v7") is plain
    with pytest.raises(OciError, match="not made for linux/arm/v7; it has linux/arm/v6"):
        choose_platform(of(v6), os="linux", architecture="arm", variant="v7")


def test_a_processor_is_not_asked_for_more_than_it_has() -> None:
    """amd64/v3 code dies on an older processor."""
    with pytest.raises(OciError):
        choose_platform(of(entry("linux", "amd64", "v3")), os="linux", architecture="amd64")


def test_arm64_and_arm64_v8_are_the_same() -> None:
    v8 = entry("linux", "arm64", "v8")
    assert choose_platform(of(v8), os="linux", architecture="arm64") is v8


def test_an_entry_without_platform_is_taken_when_it_is_the_only_image() -> None:
    bare = Descriptor(media_type=oci.OCI_MANIFEST, digest=SHA, size=7)
    assert choose_platform(of(bare, UNKNOWN), os="linux", architecture="amd64") is bare
    with pytest.raises(OciError, match="linux/arm64, one without platform"):
        choose_platform(of(entry("linux", "arm64"), bare), os="linux", architecture="amd64")


def test_an_index_of_attestations_has_no_image() -> None:
    with pytest.raises(OciError, match="no image at all"):
        choose_platform(of(UNKNOWN, ATTESTATION), os="linux", architecture="amd64")


# -- configs and layers ---------------------------------------------------------------------------


def config(**process: Any) -> bytes:
    whole = {
        "os": "linux",
        "architecture": "amd64",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": [SHA]},
        "history": [{"created_by": "hand"}],
    }
    return json.dumps(whole).encode()


def test_a_config_is_read() -> None:
    body = config(
        Entrypoint=["python3"],
        Cmd=["app.py"],
        Env=["A=1", "B=x=y", "C"],
        WorkingDir="/app",
        User="web",
        StopSignal="SIGINT",
        Labels={"a": "b"},
    )
    read = decode_config(body, digest_of(body))
    assert read.image == ImageConfig(
        entrypoint=("python3",),
        cmd=("app.py",),
        env={"A": "1", "B": "x=y", "C": ""},
        working_dir="/app",
        user="web",
        stop_signal="SIGINT",
    )
    assert read.diff_ids == (SHA,)
    assert read.platform == Platform(os="linux", architecture="amd64")


def test_docker_writes_null_for_nothing() -> None:
    body = config(Entrypoint=None, Cmd=None, Env=None, User=None)
    assert decode_config(body).image == ImageConfig()
    assert decode_config(b'{"rootfs":{"diff_ids":[]},"config":null}').image == ImageConfig()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"rootfs":{"diff_ids":["md5:1"]}}',
        config(Cmd="a string"),
        config(Env=[1]),
        config(User="\0"),
    ],
)
def test_what_is_no_config_is_refused(body: bytes) -> None:
    with pytest.raises(OciError):
        decode_config(body)
    with pytest.raises(OciError):
        decode_config(config(), SHA)


def test_only_plain_and_gzip_layers_can_be_unpacked() -> None:
    assert layer_compression(oci.OCI_LAYER) is layer_compression(oci.DOCKER_LAYER)
    assert layer_compression(oci.OCI_LAYER) is Compression.none
    assert layer_compression(oci.DOCKER_LAYER_GZIP) is Compression.gzip
    with pytest.raises(OciError, match="Build it with gzip layers"):
        layer_compression("application/vnd.oci.image.layer.v1.tar+zstd")
