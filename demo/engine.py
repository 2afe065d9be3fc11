"""The Docker Engine of `--runtime docker`: the one that answers here, or a private one.

DOCKER_HOST comes first, then /var/run/docker.sock. If neither answers and we are root, dockerd is
started with its data, socket and containerd in a folder of its own and without a network; it ends
with the demo. On an engine that was there before, nothing is touched but what carries the label of
the demo's own installation, and the images that the demo's registry has brought.
"""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from demo.house import DemoError
from demo.ledger import now
from demo.processes import end_all, start

USUAL = "unix:///var/run/docker.sock"
LABEL = "trafficmgr.instance"
START_S = 60.0
STOP_S = 30.0

BRIDGES = IPv4Network("198.18.0.0/15")
"""Of RFC 2544: no machine has it for anything else."""

_CGROUPS = Path("/sys/fs/cgroup")


class Engine:
    """An engine, spoken to over its socket.

    Args:
        host: Where it is: "unix:///...".
        folder: Where everything of a private one is; None if it was there before.
    """

    def __init__(self, host: str, folder: Path | None = None) -> None:
        self.host = host
        self._folder = folder
        self._session = aiohttp.ClientSession(
            "http://docker",
            connector=aiohttp.UnixConnector(host.removeprefix("unix://")),
            timeout=aiohttp.ClientTimeout(total=STOP_S),
        )

    @classmethod
    async def ready(cls) -> Self:
        """Return the engine that answers here, or a private one.

        Raises:
            DemoError: There is none, and none can be started.
        """
        for host in filter(None, (os.environ.get("DOCKER_HOST"), USUAL)):
            if await _answers(host):
                return cls(host)
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            raise DemoError(
                "no Docker Engine answers at DOCKER_HOST or /var/run/docker.sock, and a private "
                "one needs root and dockerd. Start Docker, or install docker.io and be root."
            )
        folder = Path(tempfile.mkdtemp(prefix="tmd-"))  # short: a socket's path has 107 bytes
        try:
            return cls(await _started(folder), folder)
        except BaseException:
            await _swept(folder)
            raise

    async def version(self) -> str:
        """Return its name and version."""
        about = await self._get("/version")
        return f"{'private' if self._folder else 'running'} Docker Engine {about['Version']}"

    async def containers_of(self, instance: str) -> tuple[str, ...]:
        """Return the names of the containers that an installation has on it."""
        found = await self._get(f"/containers/json?all=1&{_filter(instance)}") if instance else []
        return tuple(f"container {one['Names'][0].removeprefix('/')}" for one in found)

    async def close(self, instance: str, registry: str) -> None:
        """Remove what is left of an installation and its images, and end a private engine.

        Args:
            instance: The installation.
            registry: Where its images came from, "127.0.0.1:5000".
        """
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            if instance:
                await self._forget(instance)
            if self._folder is None:
                await self._forget_images(registry)
        await self._session.close()
        if self._folder is not None:
            await _swept(self._folder)

    async def _forget(self, instance: str) -> None:
        wanted = _filter(instance)
        for one in await self._get(f"/containers/json?all=1&{wanted}"):
            await self._delete(f"/containers/{one['Id']}?force=1&v=1")
        for one in await self._get(f"/networks?{wanted}"):
            await self._delete(f"/networks/{one['Id']}")
        for one in (await self._get(f"/volumes?{wanted}"))["Volumes"] or []:
            await self._delete(f"/volumes/{one['Name']}")

    async def _forget_images(self, registry: str) -> None:
        """Remove images of the demo's registry, with the tags that trafficmgr gave them."""
        for image in await self._get("/images/json"):
            if any(name.startswith(f"{registry}/") for name in image["RepoDigests"] or []):
                await self._delete(f"/images/{image['Id']}?force=1")

    async def _get(self, path: str) -> Any:  # noqa: ANN401  JSON
        async with self._session.get(path, raise_for_status=True) as response:
            return await response.json()

    async def _delete(self, path: str) -> None:
        async with self._session.delete(path):
            pass  # it is best effort: the demo is over


def _filter(instance: str) -> str:
    """Return the part of a query that picks what carries an installation's label."""
    wanted = msgspec.json.encode({"label": [f"{LABEL}={instance}"]})
    return f"filters={quote(wanted)}"


def free_pool() -> str:
    """Return a network for groups that no interface of this machine has now, at random."""
    routed = _routed()
    for _ in range(1000):
        first = int(BRIDGES.network_address) + random.randrange(2**9) * 2**8
        network = IPv4Network((first, 24))
        if not any(network.overlaps(other) for other in routed):
            return str(network)
    raise DemoError(f"no /24 is left in {BRIDGES} for the groups' addresses")


# -- a private engine -----------------------------------------------------------------------------


async def _started(folder: Path) -> str:
    """Start dockerd on a folder and return its host once it answers.

    Raises:
        DemoError: It does not.
    """
    host = f"unix://{folder}/sock"
    log = folder / "log"
    process = await start(_command(folder, host), work=folder, log=log.name)
    deadline = now() + START_S
    while not await _answers(host):
        if process.returncode is not None or now() > deadline:
            raise DemoError(f"dockerd did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")
        await asyncio.sleep(0.1)
    return host


async def _swept(folder: Path) -> None:
    """End an engine and whatever it has started; remove its mounts, cgroups and files."""
    await end_all(folder, grace_s=STOP_S)
    await asyncio.to_thread(_remove_traces, folder)


def _remove_traces(folder: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    points = [line.split(" ", 5)[4] for line in lines]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", point], check=False)  # noqa: S607  wherever it is
    for parent in _CGROUPS.glob(f"*/{folder.name}"):
        for group, _, _ in os.walk(parent, topdown=False):
            with contextlib.suppress(OSError):
                Path(group).rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def _command(folder: Path, host: str) -> list[str]:
    config = folder / "daemon.json"
    config.write_text("{}", "utf-8")  # instead of the machine's own /etc/docker/daemon.json
    return [
        "dockerd",
        f"--config-file={config}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
        f"--host={host}",
        f"--cgroup-parent=/{folder.name}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--bridge=none",
        "--log-level=warn",
        "--ip6tables=false",
        *([] if _can_filter() else ["--iptables=false", "--ip-masq=false"]),
    ]


def _can_filter() -> bool:
    """Whether packet filter rules can be made here; dockerd does not start if it can't."""
    program = shutil.which("iptables")
    if program is None:
        return False
    asked = subprocess.run([program, "-w", "-t", "nat", "-S"], capture_output=True, check=False)
    return asked.returncode == 0


async def _answers(host: str) -> bool:
    path = host.removeprefix("unix://")
    if path == host:
        return False  # only unix sockets: what is elsewhere does not share our loopback
    connector = aiohttp.UnixConnector(path)
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession("http://docker", connector=connector) as session:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get("/_ping", timeout=timeout) as response:
                return response.status == 200
    return False


def _routed() -> list[IPv4Network]:
    """Return the networks that this machine has a route to, without the default one."""
    found = []
    for line in Path("/proc/net/route").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        address, mask = (socket.ntohl(int(fields[column], 16)) for column in (1, 7))
        if mask:
            found.append(IPv4Network((address, mask.bit_count())))
    return found
