"""Simulated workers, the supervisor that replaces them, and everybody who asks them.

Each worker serves its own table, whatever the controller believes. Resolvers may ask at any moment
and, worst of all, right before a table is swapped; what they were told they hold for the whole TTL.
This is the truth that the oracles of promise 1 and 13 are measured with. Moments at which nobody
asked need no event: what was answered is decided when a table is left.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trafficmgr.core import events
from trafficmgr.core.model import Publish
from trafficmgr.core.routing import Table

if TYPE_CHECKING:
    from simulation.brain import Brain
    from simulation.world import World


@dataclass
class Worker:
    """A worker process. `link` is the controller it is connected to, `session` which connection."""

    slot: int
    start_id: str
    tables: dict[str, Table]
    since: dict[str, float]
    answered: dict[str, dict[str, float]] = field(default_factory=dict)
    withdrawn: dict[str, list[str]] = field(default_factory=dict)
    http_until: dict[str, float] = field(default_factory=dict)
    tunnel_until: dict[str, float] = field(default_factory=dict)
    link: "Brain | None" = None
    session: int = 0
    free_at: float = 0.0
    is_alive: bool = True
    is_hung: bool = False
    waiting: list[Table] = field(default_factory=list)


class Dataplane:
    """All slots, and what clients and resolvers hold because of them."""

    def __init__(self, world: "World", slots: int) -> None:
        self._world = world
        self.workers: dict[int, Worker] = {}
        self.slots = slots
        self.files: dict[str, Table] = {}
        self.held: dict[str, float] = {}
        """Group -> until when some resolver may hold its address."""
        self.linger: dict[str, float] = {}
        """Group -> how long the last direct client stays after that."""
        self.ended: list[dict[str, object]] = []
        """What the supervisor tells every new controller."""
        self._starts = 0

    # -- a worker's life ----------------------------------------------------------------------

    def start(self, slot: int) -> None:
        """Start the worker of a slot; it serves what lies on disk."""
        if slot in self.workers:
            return
        self._starts += 1
        now = self._world.now
        files = {name: table for name, table in self.files.items() if table.generation}
        worker = Worker(slot, f"w{self._starts}", files, dict.fromkeys(files, now))
        self.workers[slot] = worker
        self._world.tell(events.WorkerStarted, slot=slot, start_id=worker.start_id)
        if self._world.happens(self._world.faults.worker_hangs):
            self._world.say("worker {} hangs before its hello", worker.start_id)
            self.hang(worker, 1e6)
        self._world.later(self._world.rng.uniform(0.05, 0.5), self.connect, worker)

    def connect(self, worker: Worker) -> None:
        """Say hello to the controller and then what was applied; the link is ordered."""
        brain = self._world.brain
        if not worker.is_alive or worker.is_hung or worker.link is not None or brain is None:
            return
        if not brain.is_open:
            return
        worker.link, worker.session, worker.free_at = brain, worker.session + 1, self._world.now
        for name, table in brain.published.items():
            known = worker.tables.get(name)
            if known is None or known.generation < table.generation:
                self.send(worker, table)
        generations = {name: table.generation for name, table in worker.tables.items()}
        self._say(
            worker,
            events.WorkerConnected,
            {"slot": worker.slot, "start_id": worker.start_id, "generations": generations},
        )
        for name in worker.tables:
            self.acknowledge(worker, name)

    def disconnect(self, worker: Worker, *, for_s: float) -> None:
        """Lose the link and whatever was on its way."""
        worker.link = None
        self._world.later(for_s, self.connect, worker)

    def end(self, worker: Worker, *, is_clean: bool, is_told: bool = True) -> None:
        """End a worker; until this moment it may have answered with all it had."""
        if not worker.is_alive:
            return
        world = self._world
        for name in worker.tables:
            self._leave(worker, name, None)
        worker.is_alive = False
        del self.workers[worker.slot]
        is_heard = is_clean and worker.link is not None
        worker.link = None
        if is_told:
            record = {
                "slot": worker.slot,
                "start_id": worker.start_id,
                "reaped_at": world.now,
            }
            self.ended = [*self.ended[-5:], record]
            bye = {"is_clean": True, "answered": worker.answered} if is_heard else {}
            world.tell(events.WorkerEnded, **record, **bye)
        world.later(world.rng.uniform(0.1, 2.0), self.start, worker.slot)

    def hang(self, worker: Worker, for_s: float) -> None:
        """Serve on, but hear and say nothing."""
        worker.is_hung = True
        self._world.later(for_s, self.revive, worker)

    def revive(self, worker: Worker) -> None:
        """Go on where it hung."""
        if not worker.is_hung or not worker.is_alive:
            return
        worker.is_hung = False
        waiting, worker.waiting = worker.waiting, []
        for table in waiting:
            self._take(worker, worker.session, table)
        if worker.link is None:
            self.connect(worker)

    def restart(self, start_id: str) -> None:
        """Kill and replace the worker with this start id, if it still is there."""
        for worker in list(self.workers.values()):
            if worker.start_id == start_id:
                self.end(worker, is_clean=False)

    # -- tables -------------------------------------------------------------------------------

    def send(self, worker: Worker, table: Table) -> None:
        """Send a table down a worker's link."""
        world = self._world
        slow_s = world.rng.uniform(0.5, 8.0) if world.happens(world.faults.worker_slow) else 0.05
        world.later(slow_s, self._take, worker, worker.session, table)

    def _take(self, worker: Worker, session: int, table: Table) -> None:
        if not worker.is_alive or worker.link is None or worker.session != session:
            return
        if worker.is_hung:
            worker.waiting.append(table)
            return
        name = table.endpoint
        old = worker.tables.get(name)
        if old is None or old.generation < table.generation:
            self._leave(worker, name, table)
            worker.tables[name] = table
            worker.since[name] = self._world.now
        self.acknowledge(worker, name)

    def _leave(self, worker: Worker, name: str, new: Table | None) -> None:
        """Decide what was answered from the table that is left, and who is still being served."""
        old = worker.tables.get(name)
        if old is None:
            return
        present = new.groups() if new is not None else frozenset()
        is_same = new is not None and (new.ttl_s, new.publish) == (old.ttl_s, old.publish)
        gone = worker.withdrawn.setdefault(name, [])
        for group in sorted(old.groups()):
            if is_same and group in present:
                continue
            if old.publish is Publish.groups:
                self._ask(worker, name, group, old.ttl_s)
            if group not in present and new is not None:
                self._keep_busy(worker, name, group)
                gone.append(group)
        worker.withdrawn[name] = [g for g in gone if g not in present]

    def _ask(self, worker: Worker, name: str, group: str, ttl_s: int) -> None:
        rng, now = self._world.rng, self._world.now
        chance = rng.random()
        if chance < self._world.eagerness:
            at = now
        elif chance < 0.5 + self._world.eagerness / 2:
            at = rng.uniform(worker.since[name], now)
        else:
            return
        answered = worker.answered.setdefault(name, {})
        answered[group] = max(at, answered.get(group, 0.0))
        self.held[group] = max(at + ttl_s, self.held.get(group, 0.0))

    def _keep_busy(self, worker: Worker, name: str, group: str) -> None:
        """Some clients are still being served when their group leaves the table."""
        world, rng = self._world, self._world.rng
        for until in (worker.http_until, worker.tunnel_until):
            if rng.random() < 0.3:
                lasts_s = rng.expovariate(1 / 10.0)
                until[group] = world.now + lasts_s
                world.later(lasts_s + 0.1, self._finished, worker, name)

    def _finished(self, worker: Worker, name: str) -> None:
        if worker.is_alive and worker.link is not None and not worker.is_hung:
            self.acknowledge(worker, name)

    # -- what is said -------------------------------------------------------------------------

    def acknowledge(self, worker: Worker, name: str) -> None:
        """Say which table is served, when withdrawn groups were answered, and who is busy."""
        now = self._world.now
        gone = worker.withdrawn.get(name, [])
        answered = worker.answered.get(name, {})
        told = {
            "endpoint": name,
            "slot": worker.slot,
            "start_id": worker.start_id,
            "generation": worker.tables[name].generation,
            "answered": {g: answered[g] for g in gone if g in answered},
            "http_busy": tuple(g for g in gone if worker.http_until.get(g, 0.0) > now),
            "tunnel_busy": tuple(g for g in gone if worker.tunnel_until.get(g, 0.0) > now),
        }
        self._say(worker, events.TableApplied, told)
        if self._world.happens(self._world.faults.ack_again):
            late_s = self._world.rng.uniform(0.0, 5.0)
            self._world.later(late_s, self._say, worker, events.TableApplied, told)

    def _say(self, worker: Worker, kind: type[events.Event], told: dict[str, object]) -> None:
        """Bring a frame to the controller; frames of a link do not overtake each other."""
        if worker.link is None:
            return
        world = self._world
        late_s = 0.02
        if world.happens(world.faults.slow_controller):
            late_s = world.rng.uniform(0.0, 2.0)
        worker.free_at = max(worker.free_at + 1e-6, world.now + late_s)
        world.later(worker.free_at - world.now, self._heard, worker, worker.session, kind, told)

    def _heard(
        self, worker: Worker, session: int, kind: type[events.Event], told: dict[str, object]
    ) -> None:
        brain = worker.link
        if brain is not None and worker.session == session:
            brain.tell(kind(at=self._world.controller_clock(), **told))

    # -- direct clients -----------------------------------------------------------------------

    def direct_until(self, group: str) -> float:
        """Return until when somebody is connected to the group's own address; 0 is nobody was."""
        if group not in self.linger:
            rng = self._world.rng
            self.linger[group] = rng.expovariate(1 / 8.0) if rng.random() < 0.5 else 0.0
        lasts_s = self.linger[group]
        return self.held.get(group, 0.0) + lasts_s if lasts_s else 0.0
