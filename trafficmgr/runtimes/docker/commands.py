"""Whether a container's command exists, asked before it is started.

Each container runs under the engine's init, so the engine does not notice that there is no such
program: the container starts, and ends at once with exit code 127. A config with a typing error
would look like a program that crashes. So the created container is looked into first; for one
image, command and PATH that is done once.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from trafficmgr.core.template import ContainerTemplate
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure
from trafficmgr.runtimes.docker import shape
from trafficmgr.runtimes.docker.conversation import converse
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.images import PinnedImage

_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The engine's, where neither image nor config has one."""
_FOLDER = 1 << 31
_LINK = 1 << 27
"""Bits of Go's FileMode, in which the engine answers."""
_MAY_EXECUTE = 0o111
_STAT_HEADER = "x-docker-container-path-stat"

_Key = tuple[str, str, str, str]


class Commands:
    """What was found to exist."""

    def __init__(self, engine: Engine) -> None:
        """Look through this engine."""
        self._engine = engine
        self._known: set[_Key] = set()

    async def check(
        self, spec: GroupSpec, container: ContainerTemplate, image: PinnedImage, identity: str
    ) -> None:
        """Refuse a container whose command does not exist.

        Raises:
            RuntimeFailure: So it is, or there is no command at all.
            RuntimeUnknownError: The engine can't be asked.
        """
        command = shape.argv(container, image)
        if not command:
            raise _refusal(
                spec,
                container,
                "neither its image nor the config names a command",
                f'Give it one: `command: ["..."]` in the config of endpoint {spec.endpoint}.',
            )
        path = container.env.get("PATH") or image.env.get("PATH") or _USUAL_PATH
        cwd = container.working_dir or image.working_dir or "/"
        key = (image.name, command[0], path, cwd)
        if key in self._known:
            return
        candidates = list(_candidates(command[0], path, cwd))
        if "PATH" not in container.env_from and not _may_be_mounted(candidates, container):
            if not await self._is_any_executable(identity, candidates):
                raise _refusal(
                    spec,
                    container,
                    f'there is no executable "{command[0]}" in its image',
                    "Correct `command` in the config, or the image.",
                )
            self._known.add(key)

    async def _is_any_executable(self, identity: str, candidates: list[str]) -> bool:
        for candidate in candidates:
            if await self._is_executable(identity, candidate):
                return True
        return False

    async def _is_executable(self, identity: str, path: str) -> bool:
        try:
            async with converse(
                self._engine, "HEAD", f"/containers/{identity}/archive", query={"path": path}
            ) as answer:
                stat = answer.headers.get(_STAT_HEADER, "")
        except EngineRefusal as refusal:
            return refusal.status != NOT_FOUND  # what can't be looked at is not refused
        mode = int(json.loads(base64.b64decode(stat))["mode"]) if stat else _MAY_EXECUTE
        return bool(mode & _LINK) or bool(not mode & _FOLDER and mode & _MAY_EXECUTE)


def _candidates(word: str, path: str, cwd: str) -> Iterator[str]:
    if "/" in word:
        yield str(PurePosixPath(cwd, word))
        return
    for folder in filter(None, path.split(":")):
        yield str(PurePosixPath(cwd, folder, word))


def _may_be_mounted(candidates: list[str], container: ContainerTemplate) -> bool:
    """Whether it may come from a volume, which an init container has still to fill."""
    mounted = [mount.path for mount in container.mounts]
    return any(PurePosixPath(one).is_relative_to(path) for one in candidates for path in mounted)


def _refusal(
    spec: GroupSpec, container: ContainerTemplate, why: str, advice: str
) -> RuntimeFailure:
    return RuntimeFailure(
        f'docker: cannot start group {spec.group}: container "{container.name}": {why}. Nothing of '
        f"the group runs, and traffic stays where it is. {advice}"
    )
