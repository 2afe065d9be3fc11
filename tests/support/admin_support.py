"""A house with made-up answers, and the real API in front of it, for tests of API and CLI."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.exec_support import LocalExec
from trafficmgr.admin.address import socket_path
from trafficmgr.admin.api import serve
from trafficmgr.admin.ports import UnknownNameError
from trafficmgr.core.errors import NotPossibleNowError, TrafficmgrError
from trafficmgr.core.operator import Verb
from trafficmgr.runtimes.contract import ExecSession, LogQuery, RuntimeFailure

NEW, OLD = "9f2c0000aa", "6a1d0000bb"

STATUS: dict[str, Any] = {
    "service": {
        "version": "0.1.0",
        "pid": 4711,
        "since_s": 192.4,
        "state_dir": "/srv/state",
        "slots": [
            {"slot": 0, "start_id": "w-1", "is_present": True},
            {"slot": 1, "start_id": "w-2", "is_present": False},
        ],
        "listen": {"dns": ["127.0.0.1:5300"], "http": ["127.0.0.1:8080"]},
    },
    "endpoints": [
        {
            "name": "shop",
            "hosts": ["shop.apps.test"],
            "publish": "proxy",
            "phase": "progressing",
            "says": "9f2c0000 gets 10 % and holds for 12 s more.",
            "alarm": "",
            "stable": OLD,
            "candidate": NEW,
            "previous": None,
            "generation": 7,
            "weights": [
                {
                    "revision": OLD,
                    "weight_pct": 90,
                    "observed_pct": 89.66,
                    "requests": 12034,
                    "failures": 0,
                    "ready": 3,
                    "replicas": 3,
                },
                {
                    "revision": NEW,
                    "weight_pct": 10,
                    "observed_pct": None,
                    "requests": 1201,
                    "failures": 4,
                    "ready": 2,
                    "replicas": 3,
                },
            ],
            "groups": [
                {
                    "id": "shop-7",
                    "revision": NEW,
                    "address": "127.77.0.7",
                    "state": "started",
                    "ready": False,
                    "note": "probe [/healthz] answered 500",
                    "waits": [],
                },
                {
                    "id": "shop-2",
                    "revision": "0ld00000",
                    "address": "127.77.0.2",
                    "state": "started",
                    "ready": True,
                    "note": "",
                    "waits": ["the TTL, 4 s left", "2 requests"],
                },
            ],
            "rollout": {
                "id": "r-3",
                "from": OLD,
                "to": NEW,
                "phase": "progressing",
                "step": 1,
                "steps": 3,
                "weight_pct": 10,
                "hold_left_s": 12.0,
                "deadline_left_s": 580.0,
                "reason": "",
            },
            "registry": [
                {
                    "image": "registry.test/shop",
                    "digest": "sha256:" + "ab" * 32,
                    "checked_s_ago": 4.2,
                    "trouble": "",
                    "trouble_for_s": None,
                }
            ],
            "quarantined": [{"revision": "bad00000", "reason": "it never became ready"}],
        },
        {
            "name": "blog",
            "hosts": ["blog.apps.test"],
            "publish": "groups",
            "phase": "serving",
            "alarm": "no target is ready",
            "generation": 2,
            "registry": [
                {
                    "image": "registry.test/blog",
                    "digest": "",
                    "trouble": "the registry answered 404",
                    "trouble_for_s": 125.0,
                }
            ],
        },
    ],
}

ROLLOUTS: list[dict[str, Any]] = [
    {
        "id": "r-2",
        "endpoint": "shop",
        "from": "0ld00000",
        "to": OLD,
        "outcome": "completed",
        "reason": "",
        "started_s_ago": 3700.0,
        "seconds": 71.0,
        "marks": [{"after_s": 2.5, "what": "step", "weight_pct": 10}],
    }
]


STATS: dict[str, Any] = {
    "endpoint": "shop",
    "groups": [
        {
            "id": "shop-7",
            "revision": NEW[:8],
            "trouble": "",
            "containers": [
                {
                    "name": "web",
                    "cpu_s": 1.25,
                    "memory_bytes": 3 * 1024 * 1024,
                    "received_bytes": 1500,
                    "sent_bytes": None,
                }
            ],
        },
        {"id": "shop-8", "revision": NEW[:8], "trouble": "It is gone.", "containers": []},
    ],
}

SHOWN: dict[str, Any] = {
    "endpoint": "shop",
    "phase": "serving",
    "says": "Revision 9f2c0000 serves with 1 of 1 groups ready.",
    "hosts": ["shop.apps.test"],
    "trouble": "",
    "groups": [
        {
            "id": "shop-7",
            "revision": NEW[:8],
            "state": "started",
            "ready": True,
            "note": "",
            "address": "127.77.0.7",
            "port": 80,
            "restart": "Always",
            "restarts": 2,
            "limits": {"cpu": 1.0, "memory_bytes": 512 * 1024 * 1024},
            "containers": [
                {
                    "name": "fetch",
                    "is_init": True,
                    "restarts": 2,
                    "state": "Terminated",
                    "reason": "Completed",
                    "exit_code": 0,
                    "started": "2031-02-03T04:05:01+00:00",
                    "finished": "2031-02-03T04:05:02+00:00",
                    "image": "registry.test/fetch:stable",
                    "digest": "sha256:" + "cd" * 32,
                },
                {
                    "name": "web",
                    "is_init": False,
                    "restarts": 2,
                    "state": "Running",
                    "reason": "",
                    "exit_code": None,
                    "started": "2031-02-03T04:05:02+00:00",
                    "finished": None,
                    "image": "registry.test/shop:stable",
                    "digest": "sha256:" + "ab" * 32,
                    "command": ["serve", "--all"],
                    "user": "1000:1000",
                    "ports": [80],
                    "limits": {"cpu": None, "memory_bytes": 64 * 1024 * 1024},
                    "env": {"A": "(hidden)", "TOKEN": "(secret token)"},
                    "mounts": [{"path": "/keys", "volume": "keys", "is_read_only": True}],
                    "readiness": "http :80/healthz, every 1s, timeout 5s, rise 2, fall 3",
                    "liveness": "",
                    "pre_stop": "exec sync",
                    "stop_grace_s": 10.0,
                },
            ],
            "volumes": [
                {"name": "keys", "kind": "secret", "files": {"tls.key": "token"}},
                {"name": "shared", "kind": "empty_dir", "size_bytes": 1024},
                {"name": "data", "kind": "host_path", "path": "/srv/data"},
            ],
            "previous": {
                "group": "shop-4",
                "what": "Ended",
                "why": "exit code 3",
                "at": "2031-02-03T04:04:59.5+00:00",
            },
            "events": [
                {
                    "first": "2031-02-03T04:05:03.1+00:00",
                    "last": "2031-02-03T04:06:03.1+00:00",
                    "count": 12,
                    "what": "Unhealthy",
                    "why": "GET /healthz answered 503",
                }
            ],
        }
    ],
}


class FakeHouse:
    """Answers from its attributes and remembers what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.stored: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.log = [b"first\n", b"second\n"]
        self.log_failure: Exception | None = None
        self.log_ended = threading.Event()
        self.log_waiting = threading.Event()
        self.groups = FakeGroups(self)

    def observe(self, *kinds: str, endpoint: str = "shop") -> None:
        """Let events of these kinds happen."""
        for kind in kinds:
            seq = len(self.stored) + 1
            wall = f"2031-02-03T04:05:{seq % 60:02}.123+00:00"
            event = {"event": kind, "at": 1.5, "endpoint": endpoint, "group": f"shop-{seq}"}
            self.stored.append(
                {"seq": seq, "wall": wall, "endpoint": endpoint, "kind": kind, "event": event}
            )

    def status(self) -> dict[str, Any]:
        self.fail()
        return STATUS

    async def events(
        self, endpoint: str | None, after: int, limit: int, *, has_checkpoints: bool = False
    ) -> list[dict[str, Any]]:
        self.fail()
        told = [e for e in self.stored if has_checkpoints or e["kind"] != "EvidenceKept"]
        fitting = [e for e in told if endpoint in {None, e["endpoint"]} and e["seq"] > after]
        return fitting[:limit] if after else fitting[-limit:]

    def rollouts(self, endpoint: str | None) -> list[dict[str, Any]]:
        self.fail()
        return [one for one in ROLLOUTS if endpoint in {None, one["endpoint"]}]

    def why(self, endpoint: str) -> list[str]:
        self.fail()
        self.check(endpoint)
        return ["9f2c0000 waits.", "Group shop-7 is not ready."]

    async def ask(self, verb: Verb, endpoint: str, *, replicas: int | None = None) -> str:
        self.fail()
        self.check(endpoint)
        if endpoint == "blog":
            raise NotPossibleNowError(f"blog: {verb} is not possible now.")
        said = (verb.value, endpoint) if replicas is None else (verb.value, endpoint, replicas)
        self.asked.append(said)
        return f"{endpoint}: {verb} is done."

    async def plan(self, path: Path, data: bytes) -> dict[str, Any]:
        self.fail()
        self.asked.append(("plan", path, data))
        return {"says": "workers needs a restart.", "is_possible": False}

    async def apply(self, path: Path, data: bytes) -> dict[str, Any]:
        self.fail()
        self.asked.append(("apply", path, data))
        return {"says": "shop: ttl: 10s -> 5s."}

    async def stop(self, *, groups: bool) -> str:
        self.fail()
        self.asked.append(("stop", groups))
        return "The service ends; the groups " + ("are drained." if groups else "run on.")

    def fail(self) -> None:
        """Fail as told beforehand."""
        if self.failure:
            raise self.failure

    @staticmethod
    def check(endpoint: str) -> None:
        """Know two endpoints."""
        if endpoint not in {"shop", "blog"}:
            raise UnknownNameError(f'There is no endpoint "{endpoint}".')


class FakeGroups:
    """The inside of one group; a command inside it runs beside it, as a process of the tests."""

    def __init__(self, house: FakeHouse) -> None:
        self.house = house
        self.queries: list[tuple[LogQuery, float | None, bool]] = []
        self.sessions: list[LocalExec] = []

    async def logs(
        self, group: str, query: LogQuery, *, since_s: float | None, is_previous: bool
    ) -> AsyncIterator[bytes]:
        house = self.house
        house.fail()
        self._check(group)
        self.queries.append((query, since_s, is_previous))
        try:
            for line in _last(house.log, query.tail):
                yield line
            if house.log_failure:
                raise house.log_failure
            if query.is_followed:
                house.log_waiting.set()
                await asyncio.Event().wait()
        finally:
            house.log_ended.set()

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool
    ) -> ExecSession:
        self.house.fail()
        self._check(group)
        if container not in {"", "web"}:
            raise RuntimeFailure(f'Group {group} has no container "{container}".')
        session = await LocalExec.begun(command, has_tty=has_tty)
        self.sessions.append(session)
        return session

    async def stats(self, endpoint: str, group: str | None) -> dict[str, Any]:
        self.house.fail()
        self.house.check(endpoint)
        return {**STATS, "groups": [g for g in STATS["groups"] if group in {None, g["id"]}]}

    async def show(self, endpoint: str, group: str | None) -> dict[str, Any]:
        self.house.fail()
        self.house.check(endpoint)
        return {**SHOWN, "groups": [g for g in SHOWN["groups"] if group in {None, g["id"]}]}

    @staticmethod
    def _check(group: str) -> None:
        if group != "shop-7":
            raise UnknownNameError(f'There is no group "{group}".')


def _last(lines: list[bytes], tail: int | None) -> list[bytes]:
    return lines if tail is None else lines[len(lines) - tail :]


@contextmanager
def service(house: FakeHouse, state_dir: Path) -> Iterator[None]:
    """Serve the real API of a house from a thread of its own, for clients that block."""
    state_dir.mkdir(parents=True, exist_ok=True)
    is_up = threading.Event()
    done = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with serve(house, socket_path(state_dir)):
            is_up.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        if not is_up.wait(20):
            raise TrafficmgrError("the API did not come up within 20 s")
        yield
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join(20)
