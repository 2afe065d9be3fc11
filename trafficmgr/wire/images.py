"""An OCI image on this machine, as `registry` hands it to a runtime.

Source: OCI image-spec v1.1, config.md and layer.md.
"""

from trafficmgr.core.noun import Noun


class ImageConfig(Noun):
    """The parts of an image's config that a runtime obeys."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = {}
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""


class Layer(Noun):
    """A layer blob on disk: verified against its digest, not yet against its `diff_id`.

    `path` is the compressed file, `media_type` says how, `diff_id` is the sha256 of the
    uncompressed tar ("sha256:..."), which whoever unpacks it must check.
    """

    path: str
    media_type: str
    digest: str
    diff_id: str


class LocalImage(Noun):
    """An image whose manifest, config and layers are all here and have been hashed."""

    platform_digest: str
    config: ImageConfig
    layers: tuple[Layer, ...]
