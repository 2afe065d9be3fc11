"""The demo's end of the load process: started, listened to, stopped."""

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec

from demo.house import DemoError
from demo.ledger import Ledger, from_line
from demo.load import REQUEST_TIMEOUT_S, Plan
from demo.processes import start

_PIPE = asyncio.subprocess.PIPE


class Crowd:
    """All the users of the demo. `ledger` is what they told so far."""

    def __init__(self, work: Path, plan: Plan) -> None:
        self.ledger = Ledger()
        self._work = work
        self._plan = plan
        self._process: asyncio.subprocess.Process | None = None
        self._complete = asyncio.Event()

    async def arrive(self) -> None:
        """Start the users."""
        plan = msgspec.json.encode(self._plan).decode()
        argv = [sys.executable, "-m", "demo.load", plan]
        self._process = await start(
            argv, work=self._work, log="load.log", stdin=_PIPE, stdout=_PIPE
        )

    async def listen(self) -> None:
        """Take in what they tell, from when they arrive until they have left.

        Raises:
            DemoError: They ended without being asked to.
        """
        assert self._process is not None  # noqa: S101  called after `arrive`
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        async for line in self._process.stdout:
            self.ledger.add(from_line(line))
        if not self.ledger.is_complete:
            raise DemoError(
                "the load process ended by itself; load.log in the work folder says why"
            )
        self._complete.set()

    async def leave(self) -> None:
        """Ask them to go; returns when each has finished its last request.

        Raises:
            DemoError: They did not go.
        """
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        within_s = REQUEST_TIMEOUT_S + 5
        try:
            async with asyncio.timeout(within_s):
                await self._complete.wait()
                await self._process.wait()
        except TimeoutError:
            raise DemoError(f"waited {within_s:g} s for the clients' last answers") from None
        with contextlib.suppress(OSError):
            await self._process.stdin.wait_closed()
