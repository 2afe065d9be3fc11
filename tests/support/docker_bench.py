"""The Docker runtime on the tests' own engine, with the obedient application (`docker_images`).

Each bench is an installation of its own: an instance, an address pool, a state_dir.
"""

import asyncio
import itertools
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

from support.conformance_bench import GroupBench
from support.docker_images import ImageShelf
from support.dockerd import Dockerd, free_subnet
from support.runtime_support import DEADLINE_S, tell
from trafficmgr.core.template import ContainerTemplate, GroupTemplate, ImageDigest
from trafficmgr.runtimes.contract import GroupSpec, LogQuery
from trafficmgr.runtimes.docker import DockerRuntime
from trafficmgr.runtimes.docker.names import INSTANCE

PORT = 8080


class DockerBench(GroupBench):
    """One installation on an engine."""

    def __init__(self, dockerd: Dockerd, shelf: ImageShelf, app: ImageDigest, folder: Path) -> None:
        """Use an engine, and a registry with the application."""
        self.dockerd = dockerd
        self.shelf = shelf
        self.app = app
        self.folder = folder
        self.state_dir = folder / "state"
        self.instance = secrets.token_hex(8)
        self.pool = free_subnet()
        self.client = dockerd.client()
        self.runtimes: list[DockerRuntime] = []
        self.credentials: tuple[str, str] | None = None
        self._since = _now()
        self._addresses = itertools.count(2)
        self._gate: asyncio.Event | None = None

    def open(self, *, pause_image: str = "", instance: str = "") -> DockerRuntime:
        runtime = DockerRuntime(
            base_url=self.dockerd.host,
            instance=instance or self.instance,
            address_pool=str(self.pool),
            state_dir=self.state_dir,
            keep_logs_s=3600.0,
            credentials=self._credentials,
            pause_image=pause_image,
        )
        self.runtimes.append(runtime)
        return runtime

    async def _credentials(self, _repository: str) -> tuple[str, str] | None:
        if self._gate is not None:
            await self._gate.wait()
        return self.credentials

    # -- groups -----------------------------------------------------------------------------------

    def spec(self, group: str, *, fails: bool = False) -> GroupSpec:
        command = ("/no/such/program",) if fails else ()
        return self.group(group, self.listener("web", command=command, ports=(PORT,)))

    def listener(self, name: str, **changes: object) -> ContainerTemplate:
        container = ContainerTemplate(
            name=name, image=self.app.repository, ports=(PORT,), stop_grace_s=3.0
        )
        return container.but(**changes)

    def script(self, name: str, text: str, **changes: object) -> ContainerTemplate:
        script: dict[str, object] = {"command": ("/bin/sh", "-c", text), "ports": (), **changes}
        return self.listener(name, **script)

    def group(self, group: str, *containers: ContainerTemplate, **changes: object) -> GroupSpec:
        template = GroupTemplate(containers=containers).but(**changes)
        return GroupSpec(
            group=group,
            instance=self.instance,
            endpoint="shop",
            revision="r1",
            address=str(self.pool.network_address + next(self._addresses)),
            port=PORT,
            template=template,
            images=tuple(self.app.but(container=one.name) for one in template.every_container()),
        )

    def to_ask(self, container: ContainerTemplate, line: str) -> tuple[str, ...]:
        ask = f'echo "$1" | nc -w 5 "$LOCALHOST" {container.ports[0]}'
        return ("sh", "-c", ask, "sh", line)

    # -- what the suite lets happen ---------------------------------------------------------------

    def hold_starts(self) -> None:
        """Let pulls wait, and let there be something to pull: an image that nobody has yet."""
        self._gate = asyncio.Event()
        unknown = f"sha256:{secrets.token_hex(32)}"
        self.app = self.app.but(digest=unknown, platform_digest=unknown)

    async def say(self, spec: GroupSpec, line: str) -> None:
        await tell(spec, f"say {line}")
        async with asyncio.timeout(DEADLINE_S):
            while line not in await self._log(spec.group):  # noqa: ASYNC110  another process writes
                await asyncio.sleep(0.02)

    async def _log(self, group: str) -> str:
        chunks = [chunk async for chunk in self.runtimes[-1].logs(group, LogQuery(tail=5))]
        return b"".join(chunks).decode()

    async def exit(self, spec: GroupSpec, code: int) -> None:
        await tell(spec, f"exit {code}")

    def host_folder(self) -> Path:
        folder = self.folder / "host"
        folder.mkdir(exist_ok=True)
        return folder

    # -- what is there ----------------------------------------------------------------------------

    def containers(self) -> list[str]:
        """Return the names of our containers."""
        wanted = {"label": f"{INSTANCE}={self.instance}"}
        return sorted(
            one["Names"][0][1:] for one in self.client.containers(all=True, filters=wanted)
        )

    def held(self) -> set[str]:
        wanted = {"label": f"{INSTANCE}={self.instance}"}
        volumes = self.client.volumes(filters=wanted)["Volumes"] or ()
        return {
            *self.containers(),
            *(volume["Name"] for volume in volumes),
            *(network["Name"] for network in self.client.networks(filters=wanted)),
            *(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/tm-{self.instance[:8]}-*")),
        }

    def exposed(self) -> bytes:
        engine = [
            *(self.client.inspect_container(name) for name in self.containers()),
            *(self.client.volumes()["Volumes"] or ()),
            *self.client.networks(),
            *self.client.images(),
            *self.client.events(since=self._since, until=_now(), decode=True),
        ]
        files = [path.read_bytes() for path in self.state_dir.rglob("*") if path.is_file()]
        data = self.dockerd.folder / "data" / "containers"
        files += [path.read_bytes() for path in data.rglob("*") if path.is_file()]
        lines = [_read(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
        return b"\n".join([json.dumps(engine).encode(), *files, *lines])

    async def close(self) -> None:
        runtime = self.open()
        for status in await runtime.list():
            await runtime.stop(status.group)
        for opened in self.runtimes:
            await opened.close()
        self.client.close()


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
