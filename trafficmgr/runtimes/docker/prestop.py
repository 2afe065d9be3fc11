"""What a container may do before it is told to end: a command inside, or a request to it.

It has the container's grace, of which the rest is for the end itself. That it fails is said in the
container's log and keeps nobody: the container is stopped then as any other (as Kubernetes has it).
"""

import asyncio

from trafficmgr.core.template import ContainerTemplate, ExecCheck, HttpCheck
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.seen import SeenContainer
from trafficmgr.runtimes.docker.sessions import begin

_GOOD = range(200, 300)


async def pre_stop(
    engine: Engine, spec: GroupSpec, container: ContainerTemplate, seen: SeenContainer
) -> tuple[float, str]:
    """Do it; return how much of the grace is left, and what went wrong ("" is nothing)."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    complaint = ""
    try:
        async with asyncio.timeout(container.stop_grace_s):
            match container.pre_stop:
                case ExecCheck(command=command):
                    complaint = await _run(engine, command, seen)
                case HttpCheck(port=port, path=path):
                    complaint = await _get(spec.address, port, path)
    except TimeoutError:
        complaint = f"took longer than stop_grace ({container.stop_grace_s:g} s)"
    except RuntimeFailure as error:
        complaint = str(error)
    return max(0.0, container.stop_grace_s - (loop.time() - began)), complaint


async def _run(engine: Engine, command: tuple[str, ...], seen: SeenContainer) -> str:
    session = await begin(engine, seen, command, has_tty=False)
    try:
        said = b"".join([data async for _, data in session.output()])
        code = await session.exit_code()
    finally:
        await session.close()
    return (
        "" if code == 0 else f"ended with exit code {code}: {said[-1000:].decode(errors='replace')}"
    )


async def _get(address: str, port: int, path: str) -> str:
    try:
        reader, writer = await asyncio.open_connection(address, port)
        try:
            head = (f"GET {path} HTTP/1.1", f"Host: {address}:{port}", "Connection: close")
            writer.write("\r\n".join([*head, "\r\n"]).encode())
            first = await reader.readline()
        finally:
            writer.transport.abort()
        status = int(first.split()[1])
    except (OSError, ValueError, IndexError) as error:
        return f"GET {path} on port {port} failed: {error}"
    return "" if status in _GOOD else f"GET {path} on port {port} was answered {status}"
