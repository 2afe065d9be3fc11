"""What the group part of the conformance suite needs of a bench, beside `runtime_support`.

Containers are told what to do as shell scripts, and looked into with `exec`, so that one test can
mean the same on every engine. A volume is where `${VOLUME_NAME:-/path}` says.
"""

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

from support.runtime_support import ADDRESS, DEADLINE_S, INSTANCE, Bench, EmbeddedBench, free_port
from trafficmgr.core.template import ContainerTemplate, GroupTemplate, ImageDigest
from trafficmgr.runtimes.contract import GroupSpec, LogQuery, Runtime


class GroupBench(Bench, Protocol):
    """A bench whose groups have several containers."""

    def listener(self, name: str, **changes: object) -> ContainerTemplate:
        """Return a container that listens at a port of its own, and obeys (`runtime_support`)."""
        ...

    def script(self, name: str, text: str, **changes: object) -> ContainerTemplate:
        """Return a container that runs a shell script and listens nowhere."""
        ...

    def group(self, group: str, *containers: ContainerTemplate, **changes: object) -> GroupSpec:
        """Return the spec of a group of these containers; `changes` are those of its template."""
        ...

    def to_ask(self, container: ContainerTemplate, line: str) -> tuple[str, ...]:
        """Return the command by which another container of the group asks an app something."""
        ...

    def exposed(self) -> bytes:
        """Return everything that others may see: files, the engine's own view, command lines."""
        ...

    def held(self) -> set[str]:
        """Return the names of all that the engine holds for us: to find leftovers by."""
        ...

    def host_folder(self) -> Path:
        """Return a folder of the host that containers may mount."""
        ...


class EmbeddedGroups(EmbeddedBench):
    """The embedded runtime: the obedient app is a Python page, scripts are run by the host's sh."""

    def listener(self, name: str, **changes: object) -> ContainerTemplate:
        given: dict[str, object] = {"ports": (free_port(),), **changes}
        return self._container(name, command=()).but(**given)

    def script(self, name: str, text: str, **changes: object) -> ContainerTemplate:
        return self._container(name, command=("/bin/sh", "-c", text)).but(**changes)

    def _container(self, name: str, *, command: tuple[str, ...]) -> ContainerTemplate:
        return ContainerTemplate(
            name=name, image="registry.test/shop/web", command=command, stop_grace_s=3.0
        )

    def group(self, group: str, *containers: ContainerTemplate, **changes: object) -> GroupSpec:
        template = GroupTemplate(containers=containers).but(**changes)
        ports = [port for one in containers for port in one.ports]
        digest = self.app.platform_digest
        return GroupSpec(
            group=group,
            instance=INSTANCE,
            endpoint="shop",
            revision="r1",
            address=ADDRESS,
            port=ports[0] if ports else free_port(),
            template=template,
            images=tuple(
                ImageDigest(
                    container=one.name,
                    repository=one.image,
                    digest=digest,
                    platform_digest=digest,
                )
                for one in template.every_container()
            ),
        )

    def to_ask(self, container: ContainerTemplate, line: str) -> tuple[str, ...]:
        ask = (
            "import os, socket, sys\n"
            "peer = socket.create_connection((os.environ['LOCALHOST'], int(sys.argv[1])))\n"
            "peer.sendall(sys.argv[2].encode() + b'\\n')\n"
            "print(peer.makefile().read())"
        )
        return (sys.executable, "-c", ask, str(container.ports[0]), line)

    def exposed(self) -> bytes:
        files = [path.read_bytes() for path in self.state_dir.rglob("*") if path.is_file()]
        lines = [_command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
        return b"\n".join(files + lines)

    def held(self) -> set[str]:
        groups = self.state_dir / "groups"
        return {path.name for path in groups.iterdir()} if groups.is_dir() else set()

    def host_folder(self) -> Path:
        folder = self.state_dir.parent / "host"
        folder.mkdir(exist_ok=True)
        return folder


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


class Ran(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


async def run(
    runtime: Runtime,
    group: str,
    container: str,
    *command: str,
    stdin: bytes = b"",
    has_tty: bool = False,
) -> Ran:
    """Run a command inside a container to its end."""
    said = {1: b"", 2: b""}
    async with asyncio.timeout(DEADLINE_S):
        session = await runtime.exec(group, container, command, has_tty=has_tty)
        try:
            if stdin:
                await session.send(stdin)
            if not has_tty:
                await session.send(b"")
            async for stream, data in session.output():
                said[stream] += data
            code = await session.exit_code()
        finally:
            await session.close()
    return Ran(code, said[1].decode(errors="replace"), said[2].decode(errors="replace"))


async def shell(runtime: Runtime, group: str, container: str, text: str) -> str:
    """Return what a shell script prints inside a container."""
    ran = await run(runtime, group, container, "sh", "-c", text)
    return (ran.out + ran.err).strip()


async def printed(runtime: Runtime, group: str, container: str, text: str) -> None:
    """Wait until a container's log holds a text."""
    async with asyncio.timeout(DEADLINE_S):
        while text not in await said(runtime, group, container):  # noqa: ASYNC110  another process writes
            await asyncio.sleep(0.05)


async def said(runtime: Runtime, group: str, container: str = "", **query: object) -> str:
    """Return what a container wrote."""
    wanted = LogQuery(container=container).but(**query)
    return b"".join([chunk async for chunk in runtime.logs(group, wanted)]).decode()
