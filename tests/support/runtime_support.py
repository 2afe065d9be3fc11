"""Images, an obedient application and benches for the tests of runtimes.

The application (`APP`) listens at HOST:PORT and does what it is told, one line per connection, so
that a test can make a real process say something, fork, ignore a signal or die.
"""

import asyncio
import gzip
import hashlib
import io
import json
import socket
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from trafficmgr.core.template import ContainerTemplate, GroupTemplate, ImageDigest
from trafficmgr.runtimes.contract import GroupSpec, LogQuery, Runtime
from trafficmgr.runtimes.embedded import EmbeddedRuntime
from trafficmgr.runtimes.memory import MemoryRuntime, MemoryWorld
from trafficmgr.wire.images import ImageConfig, Layer, LocalImage

DEADLINE_S = 30.0
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
INSTANCE = "test"
ADDRESS = "127.77.3.1"

APP = b"""
import json, os, signal, socket, sys
print("started", flush=True)
server = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))

def child(leave):
    pid = os.fork()
    if pid == 0:
        if leave:
            os.setsid()
            if os.fork():
                os._exit(0)
        server.close()
        print("child", os.getpid(), flush=True)
        while True:
            signal.pause()
    return pid

while True:
    peer, _ = server.accept()
    with peer:
        verb, _, rest = peer.makefile().readline().strip().partition(" ")
        answer = ""
        if verb == "say":
            print(rest, flush=True)
        elif verb == "exit":
            peer.close()
            os._exit(int(rest))
        elif verb == "kill":
            os.kill(os.getpid(), int(rest))
        elif verb == "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif verb == "child":
            child(rest == "daemon")
        elif verb == "env":
            answer = json.dumps(dict(os.environ))
        elif verb == "ids":
            answer = json.dumps([os.getpid(), os.getpgid(0), os.getsid(0), os.getppid()])
        elif verb == "cwd":
            answer = os.getcwd()
        peer.sendall(answer.encode() + b"\\n")
"""


# -- images ---------------------------------------------------------------------------------------


class Entry:
    """One entry of a hand-made tar, as hostile as you like."""

    def __init__(
        self,
        name: str,
        content: bytes = b"",
        *,
        kind: bytes = tarfile.REGTYPE,
        link: str = "",
        mode: int = 0o644,
    ) -> None:
        self.content = content
        self.info = tarfile.TarInfo(name)
        self.info.type = kind
        self.info.linkname = link
        self.info.mode = mode
        self.info.size = len(content)
        self.info.mtime = 1_700_000_000


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, link=target)


def tar_of(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            tar.addfile(entry.info, io.BytesIO(entry.content))
    return buffer.getvalue()


def layer_of(folder: Path, tar: bytes, *, zipped: bool = False) -> Layer:
    """Put the tar on the disk as a layer blob."""
    blob = gzip.compress(tar) if zipped else tar
    digest = hashlib.sha256(blob).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(blob)
    return Layer(
        path=str(folder / digest),
        media_type=OCI_TAR + ("+gzip" if zipped else ""),
        digest=f"sha256:{digest}",
        diff_id=f"sha256:{hashlib.sha256(tar).hexdigest()}",
    )


def image_of(config: ImageConfig, *layers: Layer) -> LocalImage:
    name = json.dumps([repr(config), [layer.diff_id for layer in layers]])
    digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    return LocalImage(platform_digest=digest, config=config, layers=layers)


def app_image(folder: Path, *, config: ImageConfig | None = None) -> LocalImage:
    """Return an image of the obedient application, run by this host's Python."""
    tar = tar_of([directory("app"), Entry("app/app.py", APP)])
    config = config or ImageConfig(
        entrypoint=(sys.executable, "-I", "-S"),
        cmd=("app.py",),
        env={"COLOUR": "green"},
        working_dir="/app",
    )
    return image_of(config, layer_of(folder, tar, zipped=True))


class Images:
    """A registry of sorts: what `pull` finds, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, LocalImage] = {}
        self.pulls: list[str] = []
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()

    def add(self, image: LocalImage) -> LocalImage:
        self.known[image.platform_digest] = image
        return image

    async def pull(self, image: ImageDigest) -> LocalImage:
        self.pulls.append(image.platform_digest)
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        return self.known[image.platform_digest]


# -- groups ---------------------------------------------------------------------------------------


def free_port(address: str = ADDRESS) -> int:
    with socket.create_server((address, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def group_spec(
    group: str,
    image: LocalImage,
    *,
    command: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    working_dir: str = "",
    grace_s: float = 5.0,
) -> GroupSpec:
    container = ContainerTemplate(
        name="web",
        image="registry.test/shop/web",
        command=command,
        env=dict(env or {}),
        working_dir=working_dir,
        stop_grace_s=grace_s,
    )
    digest = image.platform_digest
    return GroupSpec(
        group=group,
        instance=INSTANCE,
        endpoint="shop",
        revision="r1",
        address=ADDRESS,
        port=free_port(),
        template=GroupTemplate(containers=(container,)),
        images=(
            ImageDigest(
                container="web",
                repository="registry.test/shop/web",
                digest=digest,
                platform_digest=digest,
            ),
        ),
    )


async def tell(spec: GroupSpec, line: str) -> str:
    """Have the group's application do something; waits until it listens."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection(spec.address, spec.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            try:
                writer.write(f"{line}\n".encode())
                return (await reader.readline()).decode().strip()
            except ConnectionResetError:
                return ""
            finally:
                writer.close()


def read_text(path: Path) -> str:
    """Return what is in the file, nothing if there is none (a log between two files)."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110  other processes make it true
            await asyncio.sleep(0.01)


async def log_text(runtime: Runtime, group: str, *, tail: int | None = None) -> str:
    chunks = [chunk async for chunk in runtime.logs(group, LogQuery(tail=tail))]
    return b"".join(chunks).decode()


# -- benches: what the conformance suite needs of a runtime ---------------------------------------


class Bench(Protocol):
    """A world with a runtime, and ways to make its groups do things."""

    def open(self) -> Runtime:
        """Return a new runtime on the same world, as a new controller would."""
        ...

    def spec(self, group: str, *, fails: bool = False) -> GroupSpec:
        """Return the spec of a group; with `fails` of one that can't be started."""
        ...

    def hold_starts(self) -> None:
        """Let starts from now on hang until they are stopped."""
        ...

    async def say(self, spec: GroupSpec, line: str) -> None:
        """Let the group write a line."""
        ...

    async def exit(self, spec: GroupSpec, code: int) -> None:
        """Let the group end by itself."""
        ...

    async def close(self) -> None:
        """End everything."""
        ...


class EmbeddedBench:
    """The embedded runtime with the obedient application."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.images = Images(folder / "blobs")
        self.app = self.images.add(app_image(self.images.folder))
        self.runtimes: list[EmbeddedRuntime] = []

    def open(self) -> EmbeddedRuntime:
        runtime = EmbeddedRuntime(
            state_dir=self.state_dir, instance=INSTANCE, pull=self.images.pull
        )
        self.runtimes.append(runtime)
        return runtime

    def spec(self, group: str, *, fails: bool = False) -> GroupSpec:
        return group_spec(group, self.app, command=("/no/such/program",) if fails else ())

    def hold_starts(self) -> None:
        self.images.gate = asyncio.Event()

    async def say(self, spec: GroupSpec, line: str) -> None:
        await tell(spec, f"say {line}")
        folder = self.state_dir / "groups" / spec.group / "web"
        await eventually(lambda: line in read_text(folder / "log") + read_text(folder / "log.1"))

    async def exit(self, spec: GroupSpec, code: int) -> None:
        await tell(spec, f"exit {code}")

    async def close(self) -> None:
        runtime = self.open()
        for status in await runtime.list():
            await runtime.stop(status.group)
        for runtime in self.runtimes:
            await runtime.close()


class MemoryBench:
    """The memory runtime."""

    def __init__(self) -> None:
        self.world = MemoryWorld()
        self.runtimes: list[MemoryRuntime] = []

    def open(self) -> MemoryRuntime:
        runtime = MemoryRuntime(self.world)
        self.runtimes.append(runtime)
        return runtime

    def spec(self, group: str, *, fails: bool = False) -> GroupSpec:
        if fails:
            self.runtimes[-1].fail_next_start("it shall not")
        image = LocalImage(platform_digest="sha256:0", config=ImageConfig(), layers=())
        return group_spec(group, image)

    def hold_starts(self) -> None:
        for runtime in self.runtimes:
            runtime.lag = 10 * DEADLINE_S

    async def say(self, spec: GroupSpec, line: str) -> None:
        await self.runtimes[-1].say(spec.group, line)

    async def exit(self, spec: GroupSpec, code: int) -> None:
        await self.runtimes[-1].end(spec.group, f"exit code {code}")

    async def close(self) -> None:
        for runtime in self.runtimes:
            await runtime.close()
