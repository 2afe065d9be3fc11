"""What is put into a group's volumes before its members start.

All of it goes as one archive into the running pause container, which has every volume mounted. The
secrets' volumes are memory (tmpfs), so the values are on no disk; they are in no label, argument,
event or answer of the engine either. Each container has its own copy, which only its own user can
read. An empty_dir may be written to by everyone in the group, whoever they run as.
"""

import io
import tarfile
from collections.abc import Collection, Iterator, Mapping

from trafficmgr.core.template import ContainerTemplate, EmptyDir
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure, Secrets
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.images import PinnedImage
from trafficmgr.runtimes.docker.pause import pause_image, program
from trafficmgr.runtimes.docker.shape import ENV_VOLUME, SECRETS, VOLUMES, secret_copies

_FOR_EVERYONE = 0o777
_FOR_ITS_USER = 0o400
_PROGRAM = 0o555
_ROOT = "/trafficmgr"


async def fill(
    engine: Engine,
    spec: GroupSpec,
    secrets: Secrets,
    *,
    pause: str,
    created: Mapping[str, str],
    images: Mapping[str, PinnedImage],
    wrapped: Collection[str],
) -> None:
    """Fill the volumes of a group whose pause container runs.

    Args:
        engine: Where it runs.
        spec: The group.
        secrets: The values that it needs.
        pause: Its pause container.
        created: Container -> id, of those that wait to be started.
        images: Container -> its image.
        wrapped: The containers with secrets in their environment.
    """
    copies = secret_copies(spec, wrapped)
    users = {
        container: await _user_id(engine, spec, container, created[container], images[container])
        for container in dict.fromkeys(container for container, _ in copies)
    }
    architecture = (await engine.known()).architecture
    binary = program(pause_image(architecture).architecture) if copies else b""
    entries = [*_folders(spec)]
    for container, volume in copies:
        entries += _secret(secrets, container, volume, users[container], binary)
    if entries:
        archive = _archive(entries)
        await engine.call(lambda client: client.put_archive(pause, _ROOT, archive))


def _folders(spec: GroupSpec) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for volume in spec.template.volumes:
        if isinstance(volume.source, EmptyDir):
            entry = tarfile.TarInfo(f"{VOLUMES}/{volume.name}".removeprefix(f"{_ROOT}/"))
            entry.type, entry.mode = tarfile.DIRTYPE, _FOR_EVERYONE
            yield entry, b""


def _secret(
    secrets: Secrets, container: str, volume: str, user: int, binary: bytes
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    folder = f"{SECRETS}/{container}/{volume}".removeprefix(f"{_ROOT}/")
    if volume == ENV_VOLUME:
        variables = secrets.env(container)
        content = b"".join(f"{key}={value}\0".encode() for key, value in variables.items())
        yield _file(f"{folder}/init", binary, mode=_PROGRAM)
        yield _file(f"{folder}/env", content, mode=_FOR_ITS_USER, user=user)
        return
    for name, content in secrets.files(volume).items():
        yield _file(f"{folder}/{name}", content, mode=_FOR_ITS_USER, user=user)


def _file(path: str, content: bytes, *, mode: int, user: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.uid = len(content), mode, user
    return entry, content


def _archive(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


# -- who may read it ------------------------------------------------------------------------------


async def _user_id(
    engine: Engine, spec: GroupSpec, container: str, identity: str, image: PinnedImage
) -> int:
    """Return the number of the user that a container runs as; names are its image's."""
    user = _template(spec, container).user or image.user
    name = user.partition(":")[0]
    if not name or name.isdigit():
        return int(name or 0)
    for line in (await _passwd(engine, identity)).splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and fields[2].isdigit():  # noqa: PLR2004  passwd(5)
            return int(fields[2])
    raise RuntimeFailure(
        f'docker: cannot start group {spec.group}: container "{container}": its image knows no '
        f'user "{name}". Nothing of the group runs, and traffic stays where it is. Correct `user` '
        "in the config, or write its number."
    )


def _template(spec: GroupSpec, container: str) -> ContainerTemplate:
    return next(one for one in spec.template.every_container() if one.name == container)


async def _passwd(engine: Engine, identity: str) -> str:
    try:
        chunks, _ = await engine.call(lambda client: client.get_archive(identity, "/etc/passwd"))
        content = await engine.call(lambda _client: b"".join(chunks))
    except EngineRefusal as refusal:
        if refusal.status == NOT_FOUND:
            return ""
        raise
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            found = tar.extractfile(member) if member.isfile() else None
            if found is not None:
                return found.read().decode(errors="replace")
    return ""
