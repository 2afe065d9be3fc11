"""What happens in the demo, from the first image to the last process.

1. v1 is pushed and deployed; users arrive.
2. v2 is pushed under the same tag: shifted in steps, the old groups retire.
3. v3 never becomes healthy: aborted and quarantined, seen by nobody.
4. v4 is healthy and fails a fifth of what users ask for. The proxy sees what they see: the gate
   `compare` sends its traffic back. Where it sees nothing, a probe of the broken page does.
5. v5 is pushed; while its first step runs, the controller is killed and v6 is pushed: v5 is
   superseded, and v6 arrives although a worker is killed in the middle of its steps.
6. Users leave; `trafficmgr stop --groups` ends everything.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from demo.builder import Layer, push
from demo.crowd import Crowd
from demo.house import DemoError, House, Picture, ReceiptSeen
from demo.judge import KIND_OF, Evidence, Kill
from demo.ledger import now
from demo.processes import Child, children, connections_of, registry_command, start
from demo.revisions import Revisions
from demo.settings import SHOP, DemoSettings
from demo.versions import BROKEN, FLAWED, LAST, OVERTAKEN, image_of
from demo.view import View

TRAFFICMGR = str(Path(sys.executable).with_name("trafficmgr"))
"""The console script of our own virtual environment."""

PATIENCE_S = 45.0
"""What a step of the story may take beyond its holds: a good machine needs a fifth of it."""

INTO_THE_STEP_S = 1.0
"""How far into v6's first step the worker is killed."""


class Story:
    """One run of the demo."""

    def __init__(
        self, work: Path, settings: DemoSettings, view: View, layers: tuple[Layer, ...] = ()
    ) -> None:
        self._work = work
        self._settings = settings
        self._view = view
        self._layers = layers
        self._config = work / "demo.yaml"
        self._registry = f"http://127.0.0.1:{settings.registry_port}"
        self._revisions = Revisions()
        self._house = House(settings.state_dir, self._revisions.version_of)
        self._crowd = Crowd(work, settings.plan)
        self._kill: Kill | None = None
        self._flaw: ReceiptSeen | None = None

    def evidence(self, *, left: tuple[str, ...]) -> Evidence:
        """Return what was seen; `left` is which processes outlived the demo."""
        return Evidence(
            ledger=self._crowd.ledger,
            rollouts=self._house.now.rollouts,
            gone_since=dict(self._house.gone_since),
            kill=self._kill,
            flaw=self._flaw,
            left=left,
            weights=self._settings.weights,
        )

    async def play(self) -> None:
        """Let it all happen.

        Raises:
            DemoError: It can't go on.
        """
        self._config.write_text(self._settings.text, "utf-8")
        registry = await self._start_registry()
        await self._push("v1")
        service = await start(
            [TRAFFICMGR, "run", "-c", str(self._config)], work=self._work, log="trafficmgr.log"
        )
        self._view.say("trafficmgr run: started with config/demo.yaml")
        async with _beside(
            self._house.watch(),
            self._view.watch(self._house, self._crowd.ledger),
            _must_live(service, "trafficmgr", self._work / "trafficmgr.log"),
            _must_live(registry, "the registry", self._work / "registry.log"),
        ):
            await self._deploy_v1()
            await self._crowd.arrive()
            async with _beside(self._crowd.listen()):
                await self._roll_out_v2()
                await self._refuse_v3()
                await self._catch_v4()
                await self._supersede_v5_by_v6()
                await self._crowd.leave()
        await self._stop(service)
        registry.terminate()
        await registry.wait()

    # -- chapters ---------------------------------------------------------------------------------

    async def _deploy_v1(self) -> None:
        await self._until(_settled("v1"), "v1 to be deployed and to be all that runs")
        rates = self._settings.plan.proxy_rate, self._settings.plan.dns_rate
        self._view.say(f"v1 serves; users arrive: {rates[0]:g} + {rates[1]:g} requests a second")

    async def _roll_out_v2(self) -> None:
        await self._push("v2")
        await self._until(
            lambda seen: _all_ended(seen, "v2", "completed"), "v2 to be promoted on both endpoints"
        )
        self._view.say("v2 carries both endpoints; v1's groups drain")

    async def _refuse_v3(self) -> None:
        await self._push(BROKEN)
        before = await self._receipt(SHOP, "v2")  # of v2: it is final once v1's groups are gone
        self._view.say(f"v2 had to prove itself on {SHOP}: {', '.join(before.proofs)}")
        await self._until(_refused(BROKEN), f"{BROKEN} to be aborted and quarantined")
        self._view.say(f"{BROKEN} never became healthy: aborted, quarantined")

    async def _catch_v4(self) -> None:
        await self._push(FLAWED)
        await self._until(_refused(FLAWED), f"{FLAWED} to be aborted and quarantined")
        self._view.say(f"{FLAWED} was healthy and bad: its gates sent it back, quarantined")
        self._flaw = await self._receipt(SHOP, FLAWED)
        self._view.say(
            f"{FLAWED}'s receipt of {SHOP}: {self._flaw.requests} requests saw it, "
            f"{self._flaw.errors} of them an error; {', '.join(self._flaw.proofs)}"
        )

    async def _supersede_v5_by_v6(self) -> None:
        first_weight = self._settings.weights[0]
        await self._push(OVERTAKEN)
        await self._until(
            _stepped(OVERTAKEN, first_weight), f"{OVERTAKEN}'s first step on both endpoints"
        )
        self._kill_controller()
        await self._push(LAST)
        await self._until(
            lambda seen: _all_ended(seen, OVERTAKEN, "superseded"),
            f"{OVERTAKEN} to be superseded by {LAST}",
        )
        self._view.say(f"{OVERTAKEN} is superseded; its groups retire by the same rule")
        await self._until(_stepped(LAST, first_weight), f"{LAST}'s first step on both endpoints")
        await asyncio.sleep(INTO_THE_STEP_S)
        killed = self._kill_worker()
        await self._until(_settled(LAST), f"{LAST} to be promoted and all older groups to be gone")
        self._view.say(f"{LAST} carries both endpoints; everything older is gone")
        if killed in children(self._settings.state_dir):
            raise DemoError(f"the worker of slot {killed.slot} was killed and never replaced")

    async def _stop(self, service: asyncio.subprocess.Process) -> None:
        stop = await start(
            [TRAFFICMGR, "stop", "--groups", "-c", str(self._config)],
            work=self._work,
            log="stop.log",
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                code = await stop.wait()
                await service.wait()
        except TimeoutError:
            raise DemoError(f"waited {PATIENCE_S:g} s for `trafficmgr stop --groups`") from None
        if code:
            raise DemoError(f"`trafficmgr stop --groups` failed:{_tail(self._work / 'stop.log')}")
        self._view.say("trafficmgr stop --groups: done")

    # -- deeds ------------------------------------------------------------------------------------

    async def _start_registry(self) -> asyncio.subprocess.Process:
        argv = registry_command(self._work, self._settings.registry_port)
        process = await start(argv, work=self._work, log="registry.log")
        async with aiohttp.ClientSession() as session:
            for _ in range(int(PATIENCE_S / 0.1)):
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self._registry}/v2/", raise_for_status=True):
                        name = next(word for word in argv if "registry" in word)
                        self._view.say(f"{Path(name).name}: serving on {self._registry}")
                        return process
                if process.returncode is not None:
                    break
                await asyncio.sleep(0.1)
        raise DemoError(f"the registry did not start:{_tail(self._work / 'registry.log')}")

    async def _push(self, version: str) -> None:
        image, tag = image_of(version, self._layers), self._settings.tag
        self._revisions.learn(version, image.digest, self._config)
        await push(self._registry, self._settings.repository, tag, image)
        self._view.say(f"pushed {version} as :{tag} ({image.digest[:19]}..)")

    def _kill_controller(self) -> None:
        controller = self._child("controller")
        os.kill(controller.pid, signal.SIGKILL)
        self._view.say(f"killed the controller (pid {controller.pid}, SIGKILL)")

    def _kill_worker(self) -> Child:
        """Kill the worker that holds most of the users' connections."""
        port = self._settings.plan.http[1]
        workers = [c for c in children(self._settings.state_dir) if c.role == "worker"]
        if not workers:
            raise DemoError("there is no worker in state_dir/run/children.json to be killed")
        held, worker = max(
            ((connections_of(w.pid, port), w) for w in workers), key=lambda pair: pair[0]
        )
        self._kill = Kill(at=now(), held=held)
        os.kill(worker.pid, signal.SIGKILL)
        self._view.say(
            f"killed worker {worker.slot} (pid {worker.pid}); it held {held} connections"
        )
        return worker

    def _child(self, role: str) -> Child:
        for child in children(self._settings.state_dir):
            if child.role == role:
                return child
        raise DemoError(f"there is no {role} in state_dir/run/children.json")

    async def _receipt(self, endpoint: str, version: str) -> ReceiptSeen:
        rollout = self._house.now.rollout(endpoint, version)
        if rollout is None:
            raise DemoError(f"{endpoint} was never rolled out to {version}")
        return await self._house.receipt(rollout, within_s=PATIENCE_S)

    async def _until(self, is_true: Callable[[Picture], bool], what: str) -> None:
        within_s = PATIENCE_S + self._settings.holds_s
        await self._house.until(is_true, within_s=within_s, what=what)


# -- what a picture shows -------------------------------------------------------------------------


def _all_ended(seen: Picture, version: str, outcome: str) -> bool:
    """Whether the rollouts of both endpoints to a version ended like this."""
    rollouts = [seen.rollout(endpoint, version) for endpoint in KIND_OF]
    return all(rollout is not None and rollout.outcome == outcome for rollout in rollouts)


def _refused(version: str) -> Callable[[Picture], bool]:
    """Tell whether a version was sent back and put in quarantine everywhere."""

    def is_true(seen: Picture) -> bool:
        is_shut_out = all(version in one.quarantined for one in seen.endpoints.values())
        return is_shut_out and _all_ended(seen, version, "aborted")

    return is_true


def _settled(version: str) -> Callable[[Picture], bool]:
    """Tell whether a version is all that runs, everywhere, and its rollouts are completed."""

    def is_true(seen: Picture) -> bool:
        running = [{group.version for group in one.groups} for one in seen.endpoints.values()]
        return _all_ended(seen, version, "completed") and all(v == {version} for v in running)

    return is_true


def _stepped(version: str, weight_pct: int) -> Callable[[Picture], bool]:
    """Tell whether the step of this weight has begun everywhere."""

    def is_true(seen: Picture) -> bool:
        rollouts = [seen.rollout(endpoint, version) for endpoint in KIND_OF]
        return all(r is not None and r.has_stepped_to(weight_pct) for r in rollouts)

    return is_true


# -- what runs beside -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _beside(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run jobs beside the block; they are cancelled at its end, and their failure ends it.

    Raises:
        DemoError: The block or a job raised it.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(job) for job in jobs]
            yield
            for job in running:
                job.cancel()
    except BaseExceptionGroup as group:
        told = next((e for e in _leaves(group) if isinstance(e, DemoError)), None)
        raise told or group from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _must_live(process: asyncio.subprocess.Process, name: str, log: Path) -> None:
    """Raise as soon as a process ends that must not."""
    code = await process.wait()
    raise DemoError(f"{name} ended by itself with exit code {code}:{_tail(log)}")


def _tail(log: Path, lines: int = 12) -> str:
    """Return the end of a log, for an error message."""
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    return "\n    ".join(["", *text.splitlines()[-lines:]])
