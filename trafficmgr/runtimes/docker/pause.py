"""The image of the pause container, which owns a group's network, hostname and name servers.

It holds one small static program of our own (program/init.c says what it does), and is made here
and imported into the engine, so that nothing has to be pulled before a first group can start. Its
tag is a hash of all that is in it: a newer trafficmgr with another program makes another image,
and pause containers that run keep theirs.

See: docs/decisions/0011-the-pause-program-is-shipped-as-source-and-bytes.md
"""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from trafficmgr.runtimes.contract import RuntimeFailure

REPOSITORY = "trafficmgr.local/pause"
"""A name that no registry has, so that nobody pulls it by mistake."""

BIN = "/trafficmgr/bin"
"""The folder of the program in the image. A new volume mounted here is filled from it."""

PROGRAM = f"{BIN}/init"

_ARCHITECTURES = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
"""What engines and kernels call an architecture -> our file for it."""


@dataclass(frozen=True)
class PauseImage:
    """What the engine needs to import the image.

    Args:
        architecture: As in the file's name, "amd64" or "arm64".
        tar: The root file system, the same bytes on every machine.
        changes: Lines of a Dockerfile, of those that an import takes: what it does when it is run.
    """

    architecture: str
    tar: bytes
    changes: tuple[str, ...]

    @cached_property
    def tag(self) -> str:
        """The first digits of a hash of everything in it."""
        return hashlib.sha256(self.tar + "\n".join(self.changes).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """REPOSITORY:TAG."""
        return f"{REPOSITORY}:{self.tag}"


def pause_image(architecture: str) -> PauseImage:
    """Return the image for an engine of this architecture, as its version page names it.

    Raises:
        RuntimeFailure: We have no program for such a machine.
    """
    ours = _ARCHITECTURES.get(architecture)
    if ours is None:
        known = " and ".join(sorted(set(_ARCHITECTURES.values())))
        raise RuntimeFailure(
            f"docker: there is no pause image for architecture {architecture!r}: trafficmgr brings"
            f" its pause program for {known} only. No group can start on this engine; traffic to"
            " groups elsewhere is not touched. Build trafficmgr/runtimes/docker/program/init.c for"
            " it and name an image that holds it: runtime: {kind: docker, pause_image: ...}."
        )
    return PauseImage(
        architecture=ours,
        tar=_tar(program(ours)),
        changes=(f"ENTRYPOINT {json.dumps([PROGRAM, 'pause'])}",),
    )


def program(architecture: str) -> bytes:
    """Return the program for "amd64" or "arm64"."""
    name = f"init-{architecture}"
    return (files("trafficmgr.runtimes.docker") / "program" / name).read_bytes()


def _tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("trafficmgr", BIN[1:]):
            tar.addfile(_entry(folder, tarfile.DIRTYPE))
        tar.addfile(_entry(PROGRAM[1:], tarfile.REGTYPE, len(content)), io.BytesIO(content))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, size: int = 0) -> tarfile.TarInfo:
    """Return an entry that depends on nothing but its arguments: owner 0, time 0."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, 0o755
    return info
