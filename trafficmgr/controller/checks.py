"""External checks: gates that ask the world, each at its own pace.

A check is asked once and gives a `Finding`; an `Inquiry` asks it again and again through one stage
of a rollout and says what the findings amount to: `fall` failures in a row are a fail, one pass is
a pass, and everything else is not enough. What can't be asked says nothing (promise 12): it neither
fails nor lets a step end.

    http      a number in a JSON answer, or the status alone if no path leads to one
    command   an exit code; the command and all that it started in its session ends with the timeout
    probe     every ready group of the candidate, as controller/probes.py looks at it

What is said never holds an answer's body, a command's output or an address: these can be secret,
and a verdict goes to the journal.
"""

import asyncio
import math
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, assert_never

import aiohttp
import msgspec

from trafficmgr.controller.answer import Answer, NoAnswerError, answer_to
from trafficmgr.controller.ports import Clock
from trafficmgr.controller.probes import Execs, Looks, Seen
from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    JsonCheck,
    ProbeCheck,
    Verdict,
    VerdictKind,
)
from trafficmgr.core.model import Group, GroupPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import Probe
from trafficmgr.runtimes.embedded import identity

BODY_BYTES = 1024 * 1024
"""A JSON answer that is longer than this is no answer to a question about one number."""

END_S = 5.0
"""How long a killed command may take to be gone; one that waits for a disk can't be waited for."""


class Finding(NamedTuple):
    """What asking once has shown; insufficient is that nothing can be known."""

    kind: VerdictKind
    why: str
    numbers: dict[str, float] = {}


class Subject(NamedTuple):
    """What is asked about: an endpoint as it is now, a revision of it, and the weight that has."""

    state: EndpointState
    revision: str
    weight_pct: int


Ask = Callable[[], Awaitable[Finding]]


# -- what findings amount to ----------------------------------------------------------------------


class Inquiry:
    """A check in one stage of a rollout, and the newest verdict by it.

    Failures in a row are counted on from stage to stage, but no stage passes by what was found in
    the one before.
    """

    def __init__(self, check: Check, ask: Ask, clock: Clock) -> None:
        self._check = check
        self._ask = ask
        self._clock = clock
        self._failures = 0
        self.verdict = self._not_asked()

    def begin_stage(self) -> None:
        """Forget what was found; failures in a row stay counted."""
        self.verdict = self._not_asked()

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            begun = self._clock()
            finding = await self._ask()
            self.verdict = self._noted(finding)
            await asyncio.sleep(max(0.0, self._check.every_s - (self._clock() - begun)))

    def _not_asked(self) -> Verdict:
        why = "it was not answered yet in this stage"
        return Verdict(
            gate=self._check.name, kind=VerdictKind.insufficient, at=self._clock(), why=why
        )

    def _noted(self, finding: Finding) -> Verdict:
        kind, why, fall = finding.kind, finding.why, self._check.fall
        numbers = dict(finding.numbers)
        if kind is VerdictKind.passed:
            self._failures = 0
        elif kind is VerdictKind.failed:
            self._failures += 1
            if fall > 1:
                numbers |= {"failures": float(self._failures), "fall": float(fall)}
                why = f"{why}; {self._failures} in a row, and {fall} are a fail"
            kind = kind if self._failures >= fall else VerdictKind.insufficient
        return Verdict(gate=self._check.name, kind=kind, at=self._clock(), why=why, numbers=numbers)


# -- asking once ----------------------------------------------------------------------------------


class Asker:
    """Asks any check once."""

    def __init__(self, *, runtime: Execs, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock

    async def ask(self, check: Check, subject: Subject) -> Finding:
        """Return what is found; raises nothing."""
        match check.ask:
            case JsonCheck():
                return await ask_json(check.ask, check.timeout_s)
            case CommandCheck():
                return await run_command(check.ask, check.timeout_s, subject)
            case ProbeCheck():
                return await self._probe(check.ask, check.timeout_s, subject)
            case _:
                assert_never(check.ask)

    async def _probe(self, ask: ProbeCheck, timeout_s: float, subject: Subject) -> Finding:
        """Look at every ready group of the revision, all at once."""
        groups = [
            group
            for group in subject.state.ready(subject.revision)
            if group.phase is GroupPhase.started and not group.hook
        ]
        probe = Probe(check=ask.check, timeout_s=timeout_s)
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=None)  # controller/probes.py keeps the time
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            asyncio.TaskGroup() as looking,
        ):
            looks = {
                group.id: looking.create_task(self._looks(http, group).at(ask.container, probe))
                for group in groups
            }
        seen = {group: task.result() for group, task in looks.items()}
        return probed(seen, is_away=subject.state.is_engine_away)

    def _looks(self, http: aiohttp.ClientSession, group: Group) -> Looks:
        return Looks(
            http=http,
            runtime=self._runtime,
            clock=self._clock,
            group=group.id,
            address=group.address,
        )


def probed(seen: dict[str, Seen], *, is_away: bool) -> Finding:
    """Return what looks at groups amount to.

    While the engine is away nobody can say what a failure means, as with liveness probes.
    """
    failing = next((name for name, trouble in seen.items() if trouble), None)
    if not seen:
        return unknown("no group of the revision is ready, so there is nobody to ask")
    if failing is not None and is_away:
        return unknown(f"group {failing} fails, but the engine is away")
    if failing is not None:
        return Finding(VerdictKind.failed, f"group {failing}: {str(seen[failing]).rstrip('.')}")
    asked = [name for name, trouble in seen.items() if trouble is None]
    if asked:
        return unknown(f"group {asked[0]} could not be asked")
    return Finding(VerdictKind.passed, f"it passed in {_counted(len(seen), 'group')}")


# -- http -----------------------------------------------------------------------------------------


async def ask_json(ask: JsonCheck, timeout_s: float) -> Finding:
    """GET, and compare the number that the answer holds; without a path the status decides."""
    try:
        answer = await answer_to("GET", ask.url, timeout_s=timeout_s, most_bytes=BODY_BYTES)
    except NoAnswerError as error:
        return unknown(f"it could not be asked: {error}")
    if not ask.path:
        kind = VerdictKind.passed if answer.is_ok else VerdictKind.failed
        return Finding(kind, f"it answered {answer.status}")
    if not answer.is_ok:
        return unknown(f"it answered {answer.status}")
    if answer.is_cut:
        return unknown(f"its answer is longer than {BODY_BYTES // 1024} KiB")
    number = number_at(ask.path, answer)
    return unknown(number) if isinstance(number, str) else within(ask, number)


def number_at(path: str, answer: Answer) -> float | str:
    """Return the number to which a path leads in a JSON answer, or why there is none.

    Each part of the path is a key of an object or an index of a list. Numbers may be written as
    strings, as Prometheus does.
    """
    try:
        found: Any = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "what it answered is no JSON"
    for part in path.split("."):
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (LookupError, TypeError, ValueError):
            return f"there is no {path} in its answer"
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return f"{path} in its answer is no number"
    with suppress(ValueError, OverflowError):
        if math.isfinite(number := float(found)):
            return number
    return f"{path} in its answer is no number"


def within(ask: JsonCheck, number: float) -> Finding:
    """Return whether a number is within the bounds of a check."""
    least, most = ask.at_least, ask.at_most
    numbers = {"value": number}
    numbers |= {} if least is None else {"at_least": least}
    numbers |= {} if most is None else {"at_most": most}
    if least is not None and number < least:
        return Finding(VerdictKind.failed, f"{number:g} is less than {least:g}", numbers)
    if most is not None and number > most:
        return Finding(VerdictKind.failed, f"{number:g} is more than {most:g}", numbers)
    return Finding(VerdictKind.passed, f"{number:g} is within bounds", numbers)


# -- commands -------------------------------------------------------------------------------------


async def run_command(ask: CommandCheck, timeout_s: float, subject: Subject) -> Finding:
    """Run a command to its end, or kill it with its whole process group.

    It has a session of its own, no input, and the controller's environment with three variables
    more. What it writes is thrown away.
    """
    about = {
        "TRAFFICMGR_ENDPOINT": subject.state.name,
        "TRAFFICMGR_REVISION": subject.revision,
        "TRAFFICMGR_WEIGHT": str(subject.weight_pct),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *ask.command,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,
            env=os.environ | about,
        )
    except OSError as error:
        return unknown(f"the command can't be started: {error.strerror or type(error).__name__}")
    leader = identity.of(process.pid)
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        return unknown(f"the command did not end within {timeout_s:g}s and was killed")
    finally:
        if process.returncode is None and leader is not None:
            await _end(process, leader)
    kind = VerdictKind.failed if code else VerdictKind.passed
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return Finding(kind, f"the command {how}", {"exit_code": float(code)})


async def _end(process: Process, leader: identity.ProcessId) -> None:
    """Kill a command with everything in its process group, which is ours as long as it lives."""
    identity.send_group(leader, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await process.wait()


# -- words ----------------------------------------------------------------------------------------


def unknown(why: str) -> Finding:
    """Return that nothing can be known."""
    return Finding(VerdictKind.insufficient, why)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
