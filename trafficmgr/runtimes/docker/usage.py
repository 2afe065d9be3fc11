"""What the containers of a group have used: the engine's own counters, asked once.

Network bytes are counted where the network is, at the pause container, and are the whole group's.
"""

import json
from typing import Any

from trafficmgr.runtimes.contract import ContainerStats
from trafficmgr.runtimes.docker.conversation import ask
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import EngineRefusal
from trafficmgr.runtimes.docker.seen import SeenContainer, SeenGroup
from trafficmgr.runtimes.docker.starting import together

_NS = 1e9


async def usage(engine: Engine, group: SeenGroup) -> tuple[ContainerStats, ...]:
    """Return the figures of every container of a group, in the order of its template.

    Raises:
        RuntimeUnknownError: The engine can't be asked.
    """
    order = (
        list(group.others)
        if group.spec is None
        else [one.name for one in group.spec.template.every_container()]
    )
    seen = [(name, group.others.get(name)) for name in order]
    found = await together(_counters(engine, one) for one in (group.pause, *(s for _, s in seen)))
    networks = list((found[0].get("networks") or {}).values())
    received = sum(one["rx_bytes"] for one in networks) if networks else None
    sent = sum(one["tx_bytes"] for one in networks) if networks else None
    return tuple(
        _figures(name, counters).but(received_bytes=received, sent_bytes=sent)
        for (name, _), counters in zip(seen, found[1:], strict=True)
    )


async def _counters(engine: Engine, container: SeenContainer | None) -> dict[str, Any]:
    """Return the engine's counters of a container, none if it does not run."""
    if container is None or not container.is_running:
        return {}
    query = {"stream": "0", "one-shot": "1"}
    try:
        answer = await ask(engine, "GET", f"/containers/{container.id}/stats", query=query)
    except EngineRefusal:
        return {}  # it has just ended
    counters: dict[str, Any] = json.loads(answer)
    return counters


def _figures(name: str, counters: dict[str, Any]) -> ContainerStats:
    cpu = (counters.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = counters.get("memory_stats") or {}
    used, detail = memory.get("usage"), memory.get("stats") or {}
    idle = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return ContainerStats(
        name=name,
        cpu_s=cpu["total_usage"] / _NS if "total_usage" in cpu else None,
        memory_bytes=None if used is None else max(0, used - idle),  # as `docker stats` counts
    )
