"""What an image's config says: how to start it, and what its layers hash to unpacked.

Source: OCI image-spec v1.1, config.md. Docker writes null where it means nothing.
"""

from trafficmgr.core.noun import Noun
from trafficmgr.wire.images import ImageConfig
from trafficmgr.wire.oci import OciError, Platform, checked_digest, decode_json, is_digest


class Config(Noun):
    """An image's config: what a runtime obeys, and the digest of every unpacked layer."""

    digest: str
    image: ImageConfig
    diff_ids: tuple[str, ...]
    platform: Platform


def decode_config(body: bytes, expected_digest: str | None = None) -> Config:
    """Read an image's config.

    Raises:
        OciError: It is not that document, or no config of an image.
    """
    digest = checked_digest(body, expected_digest)
    parsed = decode_json(body, _ConfigJson, "config")
    if not all(is_digest(diff_id) for diff_id in parsed.rootfs.diff_ids):
        raise OciError("The config lists a layer whose diff_id is no sha256 digest.")
    return Config(
        digest=digest,
        image=_image_config(parsed.config or _ProcessJson()),
        diff_ids=parsed.rootfs.diff_ids,
        platform=Platform(os=parsed.os, architecture=parsed.architecture, variant=parsed.variant),
    )


class _RootfsJson(Noun):
    diff_ids: tuple[str, ...] = ()


class _ProcessJson(Noun, rename="pascal"):
    user: str | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str | None = None
    stop_signal: str | None = None


class _ConfigJson(Noun):
    rootfs: _RootfsJson
    os: str = ""
    architecture: str = ""
    variant: str = ""
    config: _ProcessJson | None = None


def _image_config(process: _ProcessJson) -> ImageConfig:
    env: dict[str, str] = {}
    for line in process.env or ():
        name, _, value = line.partition("=")
        env[name] = value
    image = ImageConfig(
        entrypoint=process.entrypoint or (),
        cmd=process.cmd or (),
        env=env,
        working_dir=process.working_dir or "",
        user=process.user or "",
        stop_signal=process.stop_signal or "",
    )
    texts = (*image.entrypoint, *image.cmd, *env, *env.values(), image.working_dir, image.user)
    if any("\0" in text for text in texts):
        raise OciError("The config has a NUL character in it, which no process can be given.")
    return image
