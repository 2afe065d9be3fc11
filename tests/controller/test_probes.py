"""Probes of several containers and of every kind: what they tell, and what they don't."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from support.controller_support import NAME, eventually, settings

from trafficmgr.controller import probes
from trafficmgr.controller.ports import boottime
from trafficmgr.controller.prober import Prober
from trafficmgr.controller.probes import readiness_of
from trafficmgr.core.events import Event, GroupEnded, GroupReady, GroupUnready
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Group, GroupPhase, Publish
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import (
    ContainerTemplate,
    ExecCheck,
    GroupTemplate,
    Probe,
    Revision,
    TcpCheck,
)
from trafficmgr.runtimes.contract import ExecSession, RuntimeFailure, RuntimeUnknownError

ADDRESS = "127.77.201.1"
GROUP = Group(id="shop-1", revision="v1", created_at=0.0, address=ADDRESS, phase=GroupPhase.started)
SOON_S = 0.02

Answer = Callable[[], int | Exception | None]
"""What the next command does: its exit code, an error at its begin, or None: it hangs."""


class Commands:
    """A runtime in which commands do as told, by container."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.ran: list[tuple[str, str, tuple[str, ...]]] = []
        self.open = 0
        self.is_engine_stuck = False

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> ExecSession:
        assert not has_tty
        self.ran.append((group, container, command))
        if self.is_engine_stuck:
            await asyncio.Event().wait()
        answer = self.answers[container]()
        if isinstance(answer, Exception):
            raise answer
        self.open += 1
        return Command(self, answer)

    def count(self, container: str) -> int:
        return sum(ran[1] == container for ran in self.ran)


class Command(ExecSession):
    def __init__(self, runtime: Commands, code: int | None) -> None:
        self.runtime = runtime
        self.code = code
        self.is_input_closed = False

    async def send(self, data: bytes) -> None:
        self.is_input_closed = not data

    async def resize(self, rows: int, columns: int) -> None:
        raise AssertionError(f"a probe has no terminal of {rows} x {columns}")

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 2, b"canary-3f9a\n"
        if self.code is None:
            await asyncio.Event().wait()

    async def exit_code(self) -> int:
        assert self.is_input_closed, "it could wait for input for ever"
        assert self.code is not None
        return self.code

    async def close(self) -> None:
        self.runtime.open -= 1


def probing_by(command: str = "check", **times: float) -> Probe:
    given: dict[str, float] = {"every_s": SOON_S, "timeout_s": 5.0, **times}
    return Probe(check=ExecCheck(command=(command, "--all")), rise=2, fall=2, **given)


def container(
    name: str, *, readiness: Probe | None = None, liveness: Probe | None = None
) -> ContainerTemplate:
    return ContainerTemplate(
        name=name, image="registry.test/x", readiness=readiness, liveness=liveness
    )


def fleet_of(*containers: ContainerTemplate, group: Group = GROUP, away: bool = False) -> Fleet:
    found = Revision(id="v1", template=GroupTemplate(containers=containers), images=())
    state = EndpointState(
        name=NAME,
        boot_id="boot-1",
        settings=settings(),
        table=Table(endpoint=NAME, generation=0, hosts=(), publish=Publish.proxy, ttl_s=1),
        revisions={"v1": found},
        stable="v1",
        groups=(group,),
        is_engine_away=away,
    )
    return Fleet(endpoints={NAME: state})


@contextlib.asynccontextmanager
async def probed(fleet: Fleet, runtime: Commands) -> AsyncIterator[list[Event]]:
    """Probe for as long as the context lasts; yield what is told."""
    told: list[Event] = []

    async def tell(event: Event) -> None:
        told.append(event)

    async with asyncio.TaskGroup() as tasks:
        prober = Prober(tasks=tasks, tell=tell, clock=boottime, runtime=runtime)
        prober.look(fleet)
        try:
            yield told
        finally:
            prober.look(Fleet())
    assert runtime.open == 0, "a command was not let go"


# -- readiness ------------------------------------------------------------------------------------


async def test_a_group_is_ready_when_the_probes_of_all_its_containers_have_passed() -> None:
    codes = {"web": 0, "side": 1}
    runtime = Commands(web=lambda: codes["web"], side=lambda: codes["side"])
    fleet = fleet_of(
        container("web", readiness=probing_by("web-ok")),
        container("side", readiness=probing_by("side-ok")),
    )

    async with probed(fleet, runtime) as told:
        await eventually(lambda: runtime.count("web") > 4)
        assert not any(isinstance(event, GroupReady) for event in told)

        codes["side"] = 0
        await eventually(lambda: isinstance(told[-1], GroupReady))
        seen = len(told)
        await eventually(lambda: runtime.count("web") > 12)
        assert len(told) == seen, "only edges are told"

        codes["web"] = 3
        await eventually(lambda: len(told) > seen)

    reasons = [event.reason for event in told if isinstance(event, GroupUnready)]
    assert reasons == [
        'container "side": side-ok ended with exit code 1',
        'container "web": web-ok ended with exit code 3',
    ]
    assert ("shop-1", "side", ("side-ok", "--all")) in runtime.ran


async def test_a_group_without_a_probe_is_ready_when_its_port_opens() -> None:
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
        web = container("web").but(ports=(port,))
        state = fleet_of(web).endpoints[NAME]
        assert readiness_of(state.revisions["v1"], port) == {"": Probe(check=TcpCheck(port=port))}

        async with probed(fleet_of(web), Commands()) as told:
            await eventually(lambda: told)

    assert isinstance(told[0], GroupReady)


async def test_what_a_command_writes_is_not_told() -> None:
    """It could be a secret, and reasons are journaled."""
    fleet = fleet_of(container("web", readiness=probing_by()))

    async with probed(fleet, Commands(web=lambda: 1)) as told:
        await eventually(lambda: told)

    assert isinstance(told[0], GroupUnready)
    assert told[0].reason == "check ended with exit code 1"


async def test_a_command_that_hangs_is_no_answer_and_is_let_go() -> None:
    fleet = fleet_of(container("web", readiness=probing_by(timeout_s=0.05)))

    async with probed(fleet, Commands(web=lambda: None)) as told:
        await eventually(lambda: told)

    assert isinstance(told[0], GroupUnready)
    assert told[0].reason == "no answer within 0.05s"


async def test_a_command_that_cannot_run_says_why() -> None:
    failure = RuntimeFailure("There is no program 'check'.")
    fleet = fleet_of(container("web", readiness=probing_by()))

    async with probed(fleet, Commands(web=lambda: failure)) as told:
        await eventually(lambda: told)

    assert isinstance(told[0], GroupUnready)
    assert told[0].reason == "There is no program 'check'."


async def test_an_engine_that_is_away_counts_neither_for_nor_against() -> None:
    answer: list[int | Exception] = [RuntimeUnknownError("The engine is away.")]
    runtime = Commands(web=lambda: answer[-1])
    ready = GROUP.but(is_ready=True, ready_since=0.0)
    probe = probing_by()
    fleet = fleet_of(container("web", readiness=probe, liveness=probe), group=ready)

    async with probed(fleet, runtime) as told:
        await eventually(lambda: runtime.count("web") > 10)
        assert told == []

        answer.append(1)
        await eventually(lambda: len(told) >= 2)

    assert {type(event) for event in told} == {GroupUnready, GroupEnded}


async def test_an_engine_that_takes_too_long_to_begin_says_nothing_about_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "BEGIN_S", 0.02)
    runtime = Commands(web=lambda: 0)
    runtime.is_engine_stuck = True
    ready = GROUP.but(is_ready=True, ready_since=0.0)
    probe = probing_by(timeout_s=0.01)

    async with probed(fleet_of(container("web", readiness=probe), group=ready), runtime) as told:
        await eventually(lambda: runtime.count("web") > 5)

    assert told == []


async def test_the_first_probe_waits_for_its_delay() -> None:
    runtime = Commands(web=lambda: 0, side=lambda: 0)
    fleet = fleet_of(
        container("web", readiness=probing_by(initial_delay_s=600.0)),
        container("side", readiness=probing_by()),
    )

    async with probed(fleet, runtime) as told:
        await eventually(lambda: runtime.count("side") > 5)

    assert runtime.count("web") == 0
    assert told == []


async def test_a_group_that_was_ready_is_looked_at_at_once() -> None:
    """A new controller must not be blind for the delay of every group."""
    runtime = Commands(web=lambda: 0)
    probe = probing_by(initial_delay_s=600.0)
    ready = GROUP.but(is_ready=True, ready_since=0.0)

    async with probed(fleet_of(container("web", readiness=probe), group=ready), runtime):
        await eventually(lambda: runtime.count("web") > 2)


# -- liveness -------------------------------------------------------------------------------------


async def test_a_group_whose_liveness_fails_so_often_in_a_row_has_ended() -> None:
    answers = [1, 0, 1, 1]
    runtime = Commands(web=lambda: 0, side=lambda: answers.pop(0) if answers else 9)
    fleet = fleet_of(
        container("web", readiness=probing_by()),
        container("side", liveness=probing_by("alive")),
    )

    async with probed(fleet, runtime) as told:
        await eventually(lambda: any(isinstance(event, GroupEnded) for event in told))
        asked = runtime.count("web")
        await eventually(lambda: runtime.count("web") > asked + 3)

    ended = [event for event in told if isinstance(event, GroupEnded)]
    assert [event.reason for event in ended] == [
        'liveness of container "side" failed: alive ended with exit code 1'
    ]
    assert answers == []
    assert runtime.count("side") == 4, "it is told once"


async def test_liveness_does_not_make_a_group_ready_or_unready() -> None:
    runtime = Commands(web=lambda: 0, side=lambda: 0)
    fleet = fleet_of(
        container("web", readiness=probing_by()),
        container("side", liveness=probing_by("alive", every_s=600.0)),
    )

    async with probed(fleet, runtime) as told:
        await eventually(lambda: told and runtime.count("side") == 1)

    assert isinstance(told[0], GroupReady)


async def test_while_the_engine_is_away_no_liveness_ends_a_group() -> None:
    """Its containers may be gone with the engine, and nothing could take their place."""
    runtime = Commands(web=lambda: 1)
    fleet = fleet_of(container("web", liveness=probing_by()), away=True)

    async with probed(fleet, runtime) as told:
        await eventually(lambda: runtime.count("web") > 10)

    assert not any(isinstance(event, GroupEnded) for event in told)
