"""Made-up receipts, and the real API in front of them."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.admin_support import FakeHouse
from trafficmgr.admin.address import socket_path
from trafficmgr.admin.api import serve
from trafficmgr.admin.ports import UnknownNameError

WHEN = "2030-01-01T00:16:41.000Z"

RECEIPT: dict[str, Any] = {
    "id": "shop-r2",
    "endpoint": "shop",
    "from": "6a1d0000",
    "to": "9f2c0000",
    "outcome": "completed",
    "is_over": True,
    "is_final": False,
    "is_rollback": False,
    "reason": "",
    "started": WHEN,
    "seconds": 71.0,
    "failed": 3,
    "failures": [
        {
            "revision": "6a1d0000",
            "role": "from",
            "by": "proxy",
            "cause": "connect",
            "count": 2,
        },
        {"revision": "9f2c0000", "role": "to", "by": "application", "cause": "5xx", "count": 1},
    ],
    "revisions": [
        {
            "revision": "6a1d0000",
            "role": "from",
            "requests": 160,
            "dns_answers": 5,
            "errors_5xx": 0,
            "failures": {"connect": 2},
            "spilled": 0,
        }
    ],
    "phases": [{"what": "step", "weight_pct": 50, "after_s": 4.0, "seconds": 10.0}],
    "shares": [
        {
            "after_s": 4.0,
            "seconds": 10.0,
            "weight_pct": 50,
            "observed_pct": 49.7,
            "clients": 321,
            "spilled": 1,
        }
    ],
    "seen": {
        "requests": 412,
        "failed": 83,
        "dns_answers": 0,
        "says": "412 requests were answered by revision 9f2c0000: 83 failed.",
    },
    "smoke": {"phase": "passed", "leg": 3, "legs": 3, "note": ""},
    "verdicts": [
        {
            "after_s": 12.0,
            "at": WHEN,
            "stage": "step 1",
            "weight_pct": 50,
            "gate": "compare",
            "kind": "fail",
            "why": "83 of 412 failed",
            "numbers": {"failed": 83.0, "finished": 412.0},
        },
        {
            "after_s": 71.0,
            "at": WHEN,
            "stage": "watch",
            "weight_pct": 100,
            "gate": "[report]",
            "kind": "pass",
            "why": "it ended with 0",
            "numbers": {},
        },
    ],
    "is_overruled": True,
    "hooks": [
        {
            "name": "migrate",
            "stage": "before",
            "phase": "succeeded",
            "group": "shop-3",
            "began": {"after_s": 1.0, "at": WHEN},
            "seconds": 5.0,
            "note": "exit code 0",
            "output": "3 tables changed\n[bold] is no markup\n",
        },
        {
            "name": "announce",
            "stage": "after",
            "phase": "waiting",
            "group": None,
            "began": None,
            "seconds": None,
            "note": "",
            "output": None,
        },
    ],
    "groups": [
        {
            "id": "shop-1",
            "revision": "6a1d0000",
            "role": "from",
            "address": "127.77.0.1",
            "withdrawn": {"after_s": 14.0, "at": WHEN},
            "last_answered": {"after_s": 7.0, "at": WHEN},
            "stopped": {"after_s": 15.0, "at": WHEN},
            "says": "",
        }
    ],
    "gaps": ["[a gap]"],
    "waits": ["1 group of 6a1d0000 to stop"],
}


class FakeReports:
    """Knows one receipt."""

    def __init__(self) -> None:
        self.found = RECEIPT

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"", accept

    async def receipts(self, endpoint: str | None, limit: int) -> list[dict[str, Any]]:
        return [self.found][:limit] if endpoint in {None, "shop"} else []

    async def receipt(self, rollout: str) -> dict[str, Any]:
        if rollout != self.found["id"]:
            raise UnknownNameError(f"There is no receipt of a rollout {rollout!r}.")
        return self.found


@contextmanager
def reporting_service(house: FakeHouse, reports: FakeReports, state_dir: Path) -> Iterator[None]:
    """Serve the real API with reports from a thread of its own, for clients that block."""
    state_dir.mkdir(parents=True)
    is_up, done = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with serve(house, socket_path(state_dir), reports):
            is_up.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert is_up.wait(20), "the API did not come up within 20 s"
        yield
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join(20)
