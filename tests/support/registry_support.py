"""Registries for tests: Debian's docker-registry, the demo's own, and one that misbehaves.

with docker_registry(tmp_path) as host: ...        # "127.0.0.1:34567"
with demo_registry(tmp_path) as host: ...
async with serving(handler) as server: ...         # server.host, server.requests
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

START_TIMEOUT_S = 20.0
"""A docker-registry is ready in 0.1 s; a busy machine may need far longer."""

USER, PASSWORD = "ci", "s3cret"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG\n"
"""bcrypt of PASSWORD at the lowest cost; docker-registry takes no other scheme."""

ROOT = Path(__file__).parents[2]


def need(program: str) -> str:
    """Return a program's path; without it the test is skipped, or fails where CI is "true"."""
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"{program} is not installed (apt-get install {program})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def docker_registry(
    folder: Path, *, auth: dict[str, Any] | None = None, tls: dict[str, str] | None = None
) -> Iterator[str]:
    """Run Debian's docker-registry with a storage of its own, and yield its host.

    Args:
        folder: An empty folder.
        auth: The `auth` part of its configuration; None lets everyone in.
        tls: The `http.tls` part; None is plain http.
    """
    program = need("docker-registry")
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": "127.0.0.1:0", **({"tls": tls} if tls else {})},
        **({"auth": auth} if auth else {}),
    }
    path = folder / "registry.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    command = [program, "serve", str(path)]
    with running(command, folder / "registry.log", "listening on ") as rest:
        yield rest.partition('"')[0].partition(",")[0]


def htpasswd_auth(folder: Path) -> dict[str, Any]:
    """Return the `auth` part for USER and PASSWORD."""
    path = folder / "htpasswd"
    path.write_text(HTPASSWD)
    return {"htpasswd": {"realm": "tests", "path": str(path)}}


@contextmanager
def demo_registry(folder: Path) -> Iterator[str]:
    """Run the demo's own registry, and yield its host."""
    script = ROOT / "demo" / "registry.py"
    command = [sys.executable, str(script), "--port", "0", "--root", str(folder / "storage")]
    with running(command, folder / "registry.log", "ready on http://") as host:
        yield host


@contextmanager
def running(command: list[str], log: Path, ready: str) -> Iterator[str]:
    """Run a program until the block ends; yield what its log says behind `ready`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _wait_for(process, log, ready)
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", log: Path, ready: str) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        is_over = process.poll() is not None
        for line in log.read_text().splitlines(keepends=True):
            if ready in line and line.endswith("\n"):
                return line.partition(ready)[2].strip()
        if is_over:
            break
        time.sleep(0.01)
    pytest.fail(f"{process.args!r} did not become ready: {log.read_text()}")


# -- registries that misbehave --------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """A server of the test's own, and what it was asked."""

    host: str = ""
    requests: list[web.BaseRequest] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def asked(self, method: str) -> list[web.BaseRequest]:
        """Return the requests with this method."""
        return [request for request in self.requests if request.method == method]


@asynccontextmanager
async def serving(handler: Handler, address: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Serve every request by one handler."""
    server = Server()

    async def recorded(request: web.Request) -> web.StreamResponse:
        server.requests.append(request)
        server.was_asked.set()
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recorded)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0)
        await site.start()
        server.host = f"{address}:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
