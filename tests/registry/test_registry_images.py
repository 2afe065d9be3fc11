"""Resolve and pull, against docker-registry and the demo's own registry alike."""

import asyncio
import gzip
import subprocess
from pathlib import Path

import aiohttp
import pytest
from support.registry_support import need, serving

from demo.builder import File, Image, Index, Layer, push, sha256, this_architecture, write_layout
from trafficmgr.core.template import ImageDigest
from trafficmgr.registry.errors import (
    NotFoundError,
    RegistryUnreachableError,
    StoreError,
    UntrustworthyAnswerError,
    UnusableImageError,
)
from trafficmgr.registry.images import Images, this_platform
from trafficmgr.registry.store import BlobStore
from trafficmgr.wire.images import ImageConfig, LocalImage
from trafficmgr.wire.oci import OCI_LAYER, OCI_LAYER_GZIP, Platform

OTHER = "s390x"


def web_image(version: str = "1", architecture: str = "") -> Image:
    files: dict[str, bytes | File] = {
        "app/app.py": f"print({version})".encode(),
        "bin/sh": File(link="busybox"),
    }
    config = {
        "Entrypoint": ["python3", "app.py"],
        "Cmd": ["--fast"],
        "Env": ["VERSION=1", "EMPTY=", "EQUATION=a=b"],
        "WorkingDir": "/app",
        "User": "web",
        "StopSignal": "SIGINT",
    }
    return Image(
        files=files,
        config=config,
        layers=(Layer.of_files({"base": b"b"}),),
        architecture=architecture or this_architecture(),
    )


def wanted(host: str, name: str, digest: str, platform_digest: str = "") -> ImageDigest:
    return ImageDigest(
        container="web",
        repository=f"{host}/{name}",
        digest=digest,
        platform_digest=platform_digest or digest,
    )


async def test_what_was_pushed_is_pulled(any_host: str, images: Images) -> None:
    built = web_image()
    pushed = await push(f"http://{any_host}", "team/web", "stable", built)

    resolved = await images.resolve(f"{any_host}/team/web", "stable")
    local = await images.pull(wanted(any_host, "team/web", pushed))

    assert resolved.digest == resolved.platform_digest == pushed == local.platform_digest
    assert local.config == ImageConfig(
        entrypoint=("python3", "app.py"),
        cmd=("--fast",),
        env={"VERSION": "1", "EMPTY": "", "EQUATION": "a=b"},
        working_dir="/app",
        user="web",
        stop_signal="SIGINT",
    )
    assert [layer.diff_id for layer in local.layers] == [
        layer.diff_id for layer in built.all_layers
    ]
    for layer in local.layers:
        blob = Path(layer.path).read_bytes()
        assert sha256(blob) == layer.digest
        assert sha256(gzip.decompress(blob)) == layer.diff_id


async def test_plain_layers_keep_their_type(any_host: str, images: Images) -> None:
    plain = Image(files={"a": b"1"}, packed=False, layers=(Layer.of_files({"b": b"2"}),))
    pushed = await push(f"http://{any_host}", "team/plain", "v1", plain)

    local = await images.pull(wanted(any_host, "team/plain", pushed))

    assert [layer.media_type for layer in local.layers] == [OCI_LAYER_GZIP, OCI_LAYER]


async def test_an_index_is_resolved_for_this_machine(any_host: str, images: Images) -> None:
    ours = web_image()
    attestation = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": ours.digest,
        "size": len(ours.manifest),
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    index = Index((web_image("0", architecture=OTHER), ours), extra=(attestation,))
    pushed = await push(f"http://{any_host}", "team/many", "stable", index)

    resolved = await images.resolve(f"{any_host}/team/many", "stable")
    local = await images.pull(
        wanted(any_host, "team/many", resolved.digest, resolved.platform_digest)
    )

    assert (resolved.digest, resolved.platform_digest) == (pushed, ours.digest)
    assert local.platform_digest == ours.digest


async def test_an_image_for_other_machines_only_is_refused(any_host: str, images: Images) -> None:
    index = Index((web_image(architecture=OTHER),))
    await push(f"http://{any_host}", "team/foreign", "stable", index)

    with pytest.raises(UnusableImageError, match=f"not made for {this_platform()}.*linux/{OTHER}"):
        await images.resolve(f"{any_host}/team/foreign", "stable")


async def test_a_missing_tag_is_not_found(any_host: str, images: Images) -> None:
    await push(f"http://{any_host}", "team/web", "stable", web_image())

    with pytest.raises(NotFoundError, match=r"404 for team/web:nope.*Traffic stays as it is"):
        await images.resolve(f"{any_host}/team/web", "nope")
    with pytest.raises(NotFoundError):
        await images.resolve(f"{any_host}/team/nobody", "stable")


async def test_registries_refuse_a_manifest_whose_blobs_are_missing(any_host: str) -> None:
    """The two registries are asked the same question, so that the demo's stays honest."""
    image = web_image("never pushed")
    async with (
        aiohttp.ClientSession() as session,
        session.put(
            f"http://{any_host}/v2/team/lost/manifests/v1",
            data=image.manifest,
            headers={"Content-Type": image.media_type},
        ) as answer,
    ):
        problems = await answer.json()

    assert answer.status == 400
    assert problems["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.skopeo
async def test_an_image_pushed_by_skopeo_is_pulled(
    any_host: str, images: Images, tmp_path: Path
) -> None:
    skopeo = need("skopeo")
    layout = tmp_path / "layout"
    built = web_image("by skopeo")
    write_layout(layout, "v1", built)
    target = f"docker://{any_host}/team/skopeo:v1"
    command = [
        skopeo, "copy", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:v1", target,
    ]  # fmt: skip
    copied = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    assert await asyncio.wait_for(copied.wait(), 60) == 0

    resolved = await images.resolve(f"{any_host}/team/skopeo", "v1")
    local = await images.pull(wanted(any_host, "team/skopeo", built.digest))

    assert resolved.digest == built.digest == local.platform_digest


async def test_a_stored_image_needs_no_registry(demo_host: str, store: BlobStore) -> None:
    index = Index((web_image(),))
    pushed = await push(f"http://{demo_host}", "team/kept", "stable", index)
    image = wanted(demo_host, "team/kept", pushed, index.images[0].digest)
    online = Images(store, {})
    first = await online.pull(image)
    await online.close()

    gone = image.but(repository="127.0.0.1:1/team/kept")
    offline = Images(store, {})
    second = await offline.pull(gone)
    await offline.close()

    assert second == first


async def test_a_missing_image_says_that_the_registry_is_down(images: Images) -> None:
    with pytest.raises(RegistryUnreachableError, match=r"127.0.0.1:1 can't be reached"):
        await images.pull(wanted("127.0.0.1:1", "team/web", "sha256:" + "0" * 64))


# -- a registry that lies -------------------------------------------------------------------------


class Fake:
    """A registry over a dictionary: path -> (type, body)."""

    def __init__(self, image: Image) -> None:
        self.content: dict[str, tuple[str, bytes]] = {
            f"manifests/{image.digest}": (image.media_type, image.manifest)
        }
        for blob in image.blobs:
            self.content[f"blobs/{sha256(blob)}"] = ("application/octet-stream", blob)
        self.delay: asyncio.Event | None = None

    async def __call__(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        if self.delay is not None:
            await self.delay.wait()
        path = request.path.removeprefix("/v2/team/web/")
        if path not in self.content:
            return aiohttp.web.Response(status=404)
        media_type, body = self.content[path]
        return aiohttp.web.Response(body=body, headers={"Content-Type": media_type})


def files_of(store: BlobStore) -> list[str]:
    store.close()
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


@pytest.mark.parametrize("lie", ["other bytes", "shorter", "longer"])
async def test_a_blob_that_is_not_its_digest_gets_no_name(
    lie: str, images: Images, store: BlobStore
) -> None:
    image = web_image()
    fake = Fake(image)
    blob = image.all_layers[0].blob
    path = f"blobs/{sha256(blob)}"
    false = {"other bytes": bytes(len(blob)), "shorter": blob[:-1], "longer": blob + b"!"}[lie]
    fake.content[path] = ("application/octet-stream", false)

    async with serving(fake) as server:
        with pytest.raises(UntrustworthyAnswerError, match=r"for team/web@sha256:.* it sent"):
            await images.pull(wanted(server.host, "team/web", image.digest))

    assert sha256(blob).removeprefix("sha256:") not in files_of(store)
    assert list((store.root / "partial").iterdir()) == []


async def test_a_manifest_that_is_not_its_digest_is_not_kept(
    images: Images, store: BlobStore
) -> None:
    image, other = web_image(), web_image("2")
    fake = Fake(image)
    fake.content[f"manifests/{image.digest}"] = (other.media_type, other.manifest)

    async with serving(fake) as server:
        with pytest.raises(UntrustworthyAnswerError, match=f"{image.digest} was asked for"):
            await images.pull(wanted(server.host, "team/web", image.digest))

    assert files_of(store) == []


async def test_a_config_with_too_few_diff_ids_is_refused(images: Images) -> None:
    image = web_image()
    short = Image(config={"Cmd": ["x"]})
    false = Image(files=image.files, layers=image.layers)
    false.__dict__["config_json"] = short.config_json

    async with serving(Fake(false)) as server:
        with pytest.raises(UntrustworthyAnswerError, match="2 layers and 0 diff_ids"):
            await images.pull(wanted(server.host, "team/web", false.digest))


async def test_layers_that_we_cannot_unpack_are_refused_before_the_download(
    images: Images,
) -> None:
    zstd = Layer(b"zstd", "application/vnd.oci.image.layer.v1.tar+zstd", sha256(b"tar"))
    image = Image(layers=(zstd,))

    async with serving(Fake(image)) as server:
        with pytest.raises(UnusableImageError, match="Build it with gzip layers"):
            await images.pull(wanted(server.host, "team/web", image.digest))

        assert not [ask for ask in server.requests if sha256(b"zstd") in ask.path]


async def test_two_pulls_of_one_image_download_it_once(images: Images) -> None:
    image = web_image()
    fake = Fake(image)
    fake.delay = asyncio.Event()
    async with serving(fake) as server, asyncio.TaskGroup() as group:
        asked = wanted(server.host, "team/web", image.digest)
        first = group.create_task(images.pull(asked))
        second = group.create_task(images.pull(asked))
        await asyncio.wait_for(server.was_asked.wait(), 20)
        fake.delay.set()
        pulled: list[LocalImage] = [await first, await second]

        assert pulled[0] == pulled[1]
        assert len(server.requests) == 1 + len(image.blobs)


async def test_a_cancelled_pull_leaves_nothing_half_done(images: Images, store: BlobStore) -> None:
    image = web_image()
    blob = image.all_layers[0].blob
    fake = Fake(image)
    started = asyncio.Event()

    async def stall(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        if not request.path.endswith(sha256(blob)):
            return await fake(request)
        response = aiohttp.web.StreamResponse(headers={"Content-Length": str(len(blob))})
        await response.prepare(request)
        await response.write(blob[:5])
        started.set()
        await asyncio.Event().wait()
        return response

    async with serving(stall) as server, asyncio.TaskGroup() as tasks:
        pull = tasks.create_task(images.pull(wanted(server.host, "team/web", image.digest)))
        await asyncio.wait_for(started.wait(), 20)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull

    assert sha256(blob).removeprefix("sha256:") not in files_of(store)
    assert list((store.root / "partial").iterdir()) == []


async def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = BlobStore(tmp_path / "file" / "store")
    images = Images(store, {})
    image = web_image()

    async with serving(Fake(image)) as server:
        with pytest.raises(StoreError, match=r"can't be kept in .*state_dir"):
            await images.pull(wanted(server.host, "team/web", image.digest))

    await images.close()
    store.close()


def test_each_platform_has_its_oci_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert this_platform() == Platform(os="linux", architecture="arm64")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert this_platform() == Platform(os="linux", architecture="amd64")
