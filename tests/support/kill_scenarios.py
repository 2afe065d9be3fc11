"""What is done to an installation while its controller is killed, and how the kills are spread.

A `Scenario` is done once without a kill, which shows the points that it passes. Each kill is a
`Job`; the lanes, which are installations of their own, share the jobs until none is left.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from support.client_support import PAUSE_S, DirectLoad, Load, boottime
from support.gate_clients import Desk
from support.history_support import History, contradictions, read_journal
from support.kill_support import (
    POLL_S,
    End,
    Hooked,
    Victim,
    before,
    end,
    hooks_of,
    is_at_rest,
    is_everybody_there,
    is_settled,
    wait_for_end,
)
from support.service_support import is_alive, wait_for
from trafficmgr.controller.faults import KILLED, SEPARATOR

# -- scenarios ------------------------------------------------------------------------------------


def _nothing(_house: Victim, _number: int) -> str:
    return ""


def _push(house: Victim, number: int, _first: str) -> None:
    house.push_image(f"{number}a")


def _push_broken(house: Victim, number: int, _first: str) -> None:
    house.push_image(f"{number}a", is_broken=True)


def _step(house: Victim, number: int) -> str:
    """Push, and wait until the rollout has traffic; return its id."""
    house.push_image(f"{number}a")
    return _wait_for_step(house)


def _promote(house: Victim, _number: int, first: str) -> None:
    _press(house, "promote", first, {"promoting", "completed"})


def _abort(house: Victim, _number: int, first: str) -> None:
    _press(house, "abort", first, {"aborting", "aborted"})


def _supersede(house: Victim, number: int, first: str) -> None:
    house.push_image(f"{number}b")
    second = _wait_for_step(house, other_than=first)
    _press(house, "promote", second, {"promoting", "completed"})


def _wait_for_step(house: Victim, other_than: str = "") -> str:
    def in_step() -> str:
        rollout = (house.status() or {}).get("rollout") or {"step": 0}
        is_it = rollout["step"] > 0 and rollout["id"] != other_than
        return str(rollout["id"]) if is_it else ""

    found: str = wait_for("a step", in_step, every_s=POLL_S)
    return found


def _press(house: Victim, button: str, rollout: str, outcomes: set[str]) -> None:
    """Press until it was heard: the controller may die before it has written it down."""

    def is_heard() -> bool:
        known = house.ask("/v1/rollouts") or []
        return any(one["id"] == rollout and one["outcome"] in outcomes for one in known)

    path = f"/v1/endpoints/shop/{button}"
    wait_for(button, lambda: is_heard() or (house.ask(path, method="POST") and is_heard()))


@dataclass(frozen=True)
class Scenario:
    """Something to be done. Both parts get the installation and a number that is new to it.

    What `prepare` brings about was killed in another scenario; what it returns goes to `do`.
    `is_hung`: before `do` a worker hangs, so that the fence has to replace it. `is_proven`: each
    revision has hooks, smoke and gates; those on traffic need `publish: proxy`, and questions are
    answered with `resume`.
    """

    name: str
    do: Callable[[Victim, int, str], None]
    prepare: Callable[[Victim, int], str] = _nothing
    rollouts: int = 1
    hold: str = "300ms"
    deadline: str = "20s"
    fence: str = "5s"
    is_hung: bool = False
    is_proven: bool = False


ROLLOUT = Scenario("rollout", _push)
ABORT = Scenario("abort", _push_broken, deadline="1s")
UNDO = Scenario("undo", _abort, prepare=_step, hold="10m")
SUPERSEDE = Scenario("supersede", _supersede, prepare=_step, rollouts=2, hold="10m")
HANG = Scenario("hang", _promote, prepare=_step, hold="10m", fence="2s", is_hung=True)
"""The fence is short, but longer than workers need to find a controller that takes over."""
PROVEN = Scenario("proven", _push, is_proven=True)

# -- jobs -----------------------------------------------------------------------------------------


class Job(NamedTuple):
    """A scenario and where its controller is killed.

    Either at `faults`, one after the other (trafficmgr/controller/faults.py says how they are
    written), or `late_s` after the first new group has a folder. `is_whole`: in `prepare`, too.
    """

    scenario: Scenario
    faults: tuple[str, ...] = ()
    late_s: float | None = None
    is_whole: bool = False

    def __str__(self) -> str:
        """Say where it kills."""
        late = "" if self.late_s is None else f"{1000 * self.late_s:g} ms after a folder"
        return f"{self.scenario.name}: {late or ', '.join(self.faults) or 'not at all'}"


class Done(NamedTuple):
    """What came of a job: `where` it was killed, the points that were passed.

    `cut` and `held` are connections of the load: those that were cut, and those that a worker held
    when it hung. `hooked` is None where there are no hooks.
    """

    job: Job
    end: End
    where: tuple[str, ...]
    lines: tuple[str, ...]
    cut: int
    held: int
    hooked: Hooked | None

    @property
    def is_missed(self) -> bool:
        """Whether it lived on, because a point was not passed this time."""
        return len(self.where) < len(self.job.faults)


def names_in(lines: tuple[str, ...]) -> list[str]:
    """Return the distinct names among points passed, in the order of their first time."""
    names = (name for line in lines for name in line.split(SEPARATOR))
    return [name for name in dict.fromkeys(names) if name != KILLED]


TRIES = 3
"""A point that depends on who is faster may not be passed each time."""


@dataclass
class Work:
    """Jobs that wait, and what came of those that are done."""

    waiting: list[Job]
    done: list[Done] = field(default_factory=list)
    missed: list[Job] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, last: Scenario) -> Job | None:
        """Take the next job, if possible one of the same scenario."""
        with self.lock:
            job = next((job for job in self.waiting if job.scenario is last), None)
            job = job or next(iter(self.waiting), None)
            if job is not None:
                self.waiting.remove(job)
            return job

    def note(self, done: Done) -> None:
        """Take note of what came of a job; one that missed its point is to be done again."""
        with self.lock:
            self.done.append(done)
            if done.is_missed:
                self.missed.append(done.job)
                if self.missed.count(done.job) < TRIES:
                    self.waiting.append(done.job)

    def never_struck(self) -> list[str]:
        """Return the jobs that missed their points each time."""
        return [str(job) for job in dict.fromkeys(self.missed) if self.missed.count(job) == TRIES]


# -- lanes ----------------------------------------------------------------------------------------


READING_S = 1.0
"""A worker that is in the middle of answering a query when it hangs has not had it for longer."""


@dataclass
class Lane:
    """An installation on which one job after another is done, with clients of both kinds."""

    house: Victim
    scenario: Scenario
    load: Load
    desk: Desk
    number: int = 0
    hung: dict[str, float] = field(default_factory=dict)
    """Workers that were made to hang -> since when, on CLOCK_BOOTTIME."""
    jobs: dict[str, Job] = field(default_factory=dict)
    """What was done while a rollout was under way."""

    def work(self, work: Work) -> None:
        """Do jobs until none is left."""
        while (job := work.take(self.scenario)) is not None:
            try:
                work.note(self.run(job))
            except AssertionError as error:
                work.waiting.clear()
                raise AssertionError(f"{job}: {error}\n{self.house.log()[-4000:]}") from error

    def run(self, job: Job) -> Done:
        """Do a job, and look at what it left once everything is at rest."""
        self._become(job.scenario)
        self.number += 1
        house, scenario = self.house, job.scenario
        past, alive, known, cut = before(house), house.controller(), house.folders(), self.load.cut
        if job.is_whole:
            house.arm(*job.faults)
        first = scenario.prepare(house, self.number)
        if not job.is_whole:
            house.arm(*job.faults)
        held = self._hang() if scenario.is_hung else 0
        scenario.do(house, self.number, first)
        where = [] if job.late_s is None else [self._kill_late(alive, job.late_s, known)]
        is_asked = wait_for_end(house, past, scenario.rollouts, resumes=scenario.is_proven)
        lines = house.disarm()
        where += [lines[n - 1] for n, line in enumerate(lines) if line == KILLED]
        if where:  # perhaps only just now
            wait_for("the controller to be gone", lambda: not is_alive(alive))
            resumes = scenario.is_proven
            is_asked |= wait_for_end(house, past, scenario.rollouts, resumes=resumes)
        self.load.wait_for_more(1)  # by then it has noticed whatever there was to notice
        new = {one["id"]: job for one in house.rollouts() if one["id"] not in past.rollouts}
        self.jobs |= new
        cut = self.load.cut - cut
        is_hooked, version = scenario.is_proven, f"{self.number}a"
        hooked = hooks_of(house, self.desk, version, is_asked=is_asked) if is_hooked else None
        return Done(job, end(house, past), tuple(where), tuple(lines), cut, held, hooked)

    def _hang(self) -> int:
        """Let a worker hang that has said hello; return how many connections of the load it holds.

        Each in turn, so that now the load waits for the fence, now it goes on.
        """
        wait_for("every worker to say hello", lambda: is_everybody_there(self.house.status()))
        workers = self.house.children("worker")
        worker = workers[self.number % len(workers)]
        os.kill(worker["pid"], signal.SIGSTOP)
        self.hung[worker["start_id"]] = boottime()
        return int(self.house.is_held_by(worker["pid"], self.load.own_port))

    def _kill_late(self, pid: int, delay_s: float, known: set[str]) -> str:
        """Kill from outside, while groups start; tell how far they had come by then."""
        wait_for("a new group", lambda: self.house.folders() - known, every_s=0.0005)
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        wait_for("the controller to be gone", lambda: not is_alive(pid), every_s=0.001)
        return f"new groups with {self.house.how_far(known)}"

    def _become(self, scenario: Scenario) -> None:
        """Have the settings of a scenario."""
        self.scenario, house = scenario, self.house
        settings = (scenario.hold, scenario.deadline, scenario.fence)
        if (house.hold, house.deadline, house.fence) == settings:
            return
        house.hold, house.deadline, house.fence = settings
        house.write_config()
        config = {"path": str(house.config), "text": house.config.read_text()}
        body = json.dumps(config)
        wait_for("apply", lambda: house.ask("/v1/apply", method="POST", body=body))


@contextmanager
def lane(folder: Path, registry: str, scenario: Scenario) -> Iterator[Lane]:
    """Yield an installation on its first revision; afterwards hold the lane's promises against it.

    Promised is that no client of either kind had a failure, that all ended when it was told to,
    and what `_history_is_right` says. Only one kind comes where traffic is judged: we don't see
    the other.
    """
    with ExitStack() as stack:
        desk = stack.enter_context(Desk())
        house = Victim(folder, registry, deadline="20s", repository=f"kill/{folder.name}")
        stack.callback(house.end_everything)
        if scenario.is_proven:
            house.prove_by(desk)
        _start(house)
        with ExitStack() as clients:
            load = clients.enter_context(Load(house.ports["http"], PAUSE_S))
            direct = DirectLoad(house.ports["dns"])
            if not scenario.is_proven:
                clients.enter_context(direct)
            at = Lane(house, scenario, load, desk)
            yield at
            if not scenario.is_proven:
                direct.wait_for_more(5)
            load.wait_for_more(5)
            wait_for("every receipt", lambda: is_settled(house))
        assert (direct.failed, load.failed) == ([], []), f"clients: {direct.failed} {load.failed}"
        assert unexplained(direct.unanswered_at, at.hung.values()) == []
        house.end()
        _history_is_right(at)


def _start(house: Victim) -> None:
    house.push_image("0a")
    house.start()
    wait_for("the first revision", lambda: is_at_rest(house.status()))
    # one query in two goes to each worker: all of them serve by now
    wait_for("every worker", lambda: all(house.addresses() for _ in range(50)))


def unexplained(unanswered_at: Iterable[float], hung_at: Iterable[float]) -> list[float]:
    """Return when queries were sent that no worker can have read in the moment before it hung.

    Only such a one is gone with its worker; whatever is sent later waits for the successor.
    """
    return [
        sent_at
        for sent_at in unanswered_at
        if not any(at - READING_S <= sent_at <= at for at in hung_at)
    ]


def _history_is_right(at: Lane) -> None:
    """The journal folds to what it stored; only what hung was replaced; all receipts are true."""
    history = _without_tasks(asyncio.run(read_journal(at.house.state_dir / "journal.db")))
    kept, folded = history.kept, history.folded
    assert kept == folded, f"stored {kept}\nfolded {folded}"
    ended = history.killed_workers.keys()
    assert ended == at.hung.keys(), f"{sorted(ended)} were killed, {sorted(at.hung)} had hung"
    answered_at = sorted(at.load.answered_at + at.house.answered_at)
    wrong = [
        f"{at.jobs.get(sentence.partition(':')[0])}: {sentence}"
        for sentence in contradictions(history, answered_at)
    ]
    assert wrong == [], "\n".join(wrong)


def _without_tasks(history: History) -> History:
    """Return the history of copies that serve: the task of a hook is none that a rollout lost."""
    tasks = {name for name, group in history.groups.items() if group.hook}
    history.groups = {k: group for k, group in history.groups.items() if k not in tasks}
    history.receipts = [
        receipt.but(groups=tuple(one for one in receipt.groups if one.id not in tasks))
        for receipt in history.receipts
    ]
    return history
