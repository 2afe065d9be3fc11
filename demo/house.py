"""What the demo knows of the running trafficmgr: its status and rollouts, asked every moment.

It asks the admin API over the unix socket, as the command line does, without a new process each
time. While the controller is dead nobody answers; then the last picture stays.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from demo.ledger import now

LOOK_EVERY_S = 0.2
ANSWER_S = 5.0

STOPPING = "stopping"

Versions = Callable[[str | None], str]
"""Turns a revision id, whole or short, into the version that it is ("" stays "")."""


class DemoError(Exception):
    """The demo can't go on; the text says what was waited for and what was seen instead."""


@dataclass(frozen=True)
class Mark:
    """Something a rollout did, on our clock."""

    at: float
    what: str
    weight_pct: int


@dataclass(frozen=True)
class RolloutSeen:
    """A rollout as the service tells it. `outcome` is "" while it is under way."""

    id: str
    endpoint: str
    origin: str
    target: str
    outcome: str
    started_at: float
    seconds: float
    marks: tuple[Mark, ...]
    reason: str = ""

    @property
    def ended_at(self) -> float:
        """When it ended, or how far it has come."""
        return self.started_at + self.seconds

    def has_stepped_to(self, weight_pct: int) -> bool:
        """Whether the step of this weight has begun."""
        return any(m.what == "step" and m.weight_pct == weight_pct for m in self.marks)


@dataclass(frozen=True)
class ReceiptSeen:
    """The receipt of a rollout: how it ended, and what the new revision's users got.

    `proofs` says of hooks, smoke and gates how they went, a few words each.
    """

    reason: str
    requests: int
    errors: int
    proofs: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupSeen:
    """A group that serves, or shall, as the service tells it; the task of a hook is none."""

    id: str
    version: str
    address: str
    state: str


@dataclass(frozen=True)
class EndpointSeen:
    """An endpoint as the service tells it; `weights` by version, in per cent."""

    name: str
    phase: str
    weights: Mapping[str, int]
    groups: tuple[GroupSeen, ...]
    quarantined: frozenset[str]


@dataclass(frozen=True)
class Picture:
    """Everything that was asked at one time. `at` is when the answer was here."""

    at: float = 0.0
    endpoints: Mapping[str, EndpointSeen] = field(default_factory=dict)
    rollouts: tuple[RolloutSeen, ...] = ()
    controller_pid: int = 0

    def rollout(self, endpoint: str, target: str) -> RolloutSeen | None:
        """Return the newest rollout of an endpoint to a version."""
        found = [r for r in self.rollouts if (r.endpoint, r.target) == (endpoint, target)]
        return found[-1] if found else None

    def __str__(self) -> str:
        """Say in a line what an error message needs."""
        if not self.at:
            return "it never answered"
        parts = []
        for one in self.endpoints.values():
            groups = ", ".join(f"{g.id} {g.version} {g.state}" for g in one.groups)
            parts.append(f"{one.name} {one.phase} {dict(one.weights)} [{groups}]")
        rollouts = [f"{r.endpoint} {r.target} {r.outcome or 'under way'}" for r in self.rollouts]
        return f"{'; '.join(parts)}; rollouts: {', '.join(rollouts) or 'none'}"


def picture(status: Any, rollouts: Any, *, at: float, versions: Versions) -> Picture:  # noqa: ANN401  JSON
    """Return the picture in the answers of /v1/status and /v1/rollouts.

    Args:
        status: As docs/behaviour.md describes it.
        rollouts: Likewise; oldest first.
        at: When the answers were made, seconds on CLOCK_BOOTTIME.
        versions: Tells the version of a revision.
    """
    return Picture(
        at=at,
        endpoints={e["name"]: _endpoint(e, versions) for e in status["endpoints"]},
        rollouts=tuple(_rollout(r, at, versions) for r in rollouts),
        controller_pid=status["service"]["pid"],
    )


def _endpoint(data: Any, versions: Versions) -> EndpointSeen:  # noqa: ANN401  JSON
    return EndpointSeen(
        name=data["name"],
        phase=data["phase"],
        weights={versions(w["revision"]): w["weight_pct"] or 0 for w in data["weights"]},
        groups=tuple(
            GroupSeen(g["id"], versions(g["revision"]), g["address"] or "", g["state"])
            for g in data["groups"]
            if not g["hook"]
        ),
        quarantined=frozenset(versions(q["revision"]) for q in data.get("quarantined", [])),
    )


def _rollout(data: Any, at: float, versions: Versions) -> RolloutSeen:  # noqa: ANN401  JSON
    started_at = at - data["started_s_ago"]
    return RolloutSeen(
        id=data["id"],
        endpoint=data["endpoint"],
        origin=versions(data["from"]),
        target=versions(data["to"]),
        outcome=data["outcome"] if data["is_over"] else "",
        started_at=started_at,
        seconds=data["seconds"] or 0.0,
        marks=tuple(
            Mark(started_at + m["after_s"], m["what"], m["weight_pct"] or 0) for m in data["marks"]
        ),
        reason=data["reason"] or "",
    )


def receipt(data: Any) -> ReceiptSeen | None:  # noqa: ANN401  JSON
    """Return the receipt in an answer of /v1/receipts; None while it is not final."""
    if not data["is_final"]:
        return None
    new = [one for one in data["revisions"] if one["role"] == "to"]
    return ReceiptSeen(
        reason=data["reason"],
        requests=sum(one["requests"] for one in new),
        errors=sum(one["errors_5xx"] for one in new),
        proofs=tuple(_proofs(data)),
    )


def _proofs(data: Any) -> Iterator[str]:  # noqa: ANN401  JSON
    for hook in data["hooks"]:
        wrote = f" ({hook['output'].strip()})" if hook["output"] else ""
        yield f"hook {hook['name']} {hook['phase']}{wrote}"
    if data["smoke"]:
        yield "smoke {phase} ({leg} of {legs} legs)".format_map(data["smoke"])
    last = {(one["gate"], one["weight_pct"]): one["kind"] for one in data["verdicts"]}
    for (gate, weight_pct), kind in last.items():
        yield f"gate {gate} at {weight_pct} %: {kind}"


class House:
    """The running service, looked at all the time by `watch`."""

    def __init__(self, state_dir: Path, versions: Versions) -> None:
        self.now = Picture()
        self.gone_since: dict[tuple[str, str], float] = {}
        self.is_answering = False
        self._socket = str(state_dir / "admin.sock")
        self._versions = versions
        self._looked = asyncio.Condition()

    async def watch(self) -> None:
        """Look until cancelled."""
        async with self._session() as session:
            while True:
                self.is_answering = False
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    self.is_answering = self._take(await self._look(session))
                async with self._looked:
                    self._looked.notify_all()
                await asyncio.sleep(LOOK_EVERY_S)

    async def until(
        self, is_true: Callable[[Picture], bool], *, within_s: float, what: str
    ) -> Picture:
        """Wait until a picture shows something; return that picture.

        Raises:
            DemoError: It did not within that many seconds.
        """
        try:
            async with asyncio.timeout(within_s), self._looked:
                await self._looked.wait_for(lambda: self.is_answering and is_true(self.now))
        except TimeoutError:
            raise DemoError(f"waited {within_s:g} s for {what}. Last seen: {self.now}") from None
        return self.now

    async def receipt(self, rollout: RolloutSeen, *, within_s: float) -> ReceiptSeen:
        """Wait until the receipt of a rollout is final, and return it.

        Raises:
            DemoError: It was not within that many seconds.
        """
        try:
            async with asyncio.timeout(within_s), self._session() as session:
                while True:
                    found = await self._receipt(session, rollout)
                    if found is not None:
                        return found
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            what = f"the final receipt of {rollout.id}. Last seen: {self.now}"
            raise DemoError(f"waited {within_s:g} s for {what}") from None

    async def _receipt(
        self, session: aiohttp.ClientSession, rollout: RolloutSeen
    ) -> ReceiptSeen | None:
        with contextlib.suppress(aiohttp.ClientError, OSError):  # no controller, or not yet
            async with session.get(f"/v1/receipts/{rollout.id}", raise_for_status=True) as answer:
                return receipt(await answer.json())
        return None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            "http://trafficmgr",
            connector=aiohttp.UnixConnector(self._socket),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
        )

    async def _look(self, session: aiohttp.ClientSession) -> Picture:
        async with session.get("/v1/rollouts", raise_for_status=True) as response:
            rollouts = await response.json()
            rollouts_at = now()
        async with session.get("/v1/status", raise_for_status=True) as response:
            status = await response.json()
        seen = picture(status, rollouts, at=rollouts_at, versions=self._versions)
        return Picture(now(), seen.endpoints, seen.rollouts, seen.controller_pid)

    def _take(self, seen: Picture) -> bool:
        """Make it the present picture, unless a new controller has not remembered all of it yet.

        Notes which groups were told to stop since the last one.
        """
        if not self.now.endpoints.keys() <= seen.endpoints.keys():
            return False
        for group in _serving(self.now) - _serving(seen):
            self.gone_since[group] = seen.at
        self.now = seen
        return True


def _serving(seen: Picture) -> set[tuple[str, str]]:
    """Return (address, version) of all groups that have not been told to stop."""
    return {
        (group.address, group.version)
        for endpoint in seen.endpoints.values()
        for group in endpoint.groups
        if group.address and group.state != STOPPING
    }
