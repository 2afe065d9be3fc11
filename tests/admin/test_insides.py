"""The inside of groups, seen through a house of real parts on a memory runtime."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.config_support import GOOD
from support.controller_support import Clock, eventually, running

from trafficmgr.admin.house import LiveHouse
from trafficmgr.admin.ports import UnknownNameError
from trafficmgr.config.load import load
from trafficmgr.config.settings import Settings
from trafficmgr.controller.calls import Calls
from trafficmgr.controller.configuring import Configuring, registry_access
from trafficmgr.controller.hands import Hands
from trafficmgr.controller.images import ImageWatch
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop, Mind
from trafficmgr.controller.secrets import SecretStore
from trafficmgr.controller.smoke import SmokeTest
from trafficmgr.core import events
from trafficmgr.core.commands import AnyCommand
from trafficmgr.core.errors import NotPossibleNowError
from trafficmgr.core.evidence import Evidence
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.gating import Gates, Verdict, VerdictKind
from trafficmgr.core.model import Group
from trafficmgr.core.operator import Verb
from trafficmgr.core.template import (
    FromEnv,
    FromSecret,
    ImageDigest,
    Resources,
    Revision,
    SecretFiles,
    Volume,
)
from trafficmgr.journal.sqlite import Journal
from trafficmgr.registry.images import Images
from trafficmgr.registry.poller import Poller
from trafficmgr.registry.store import BlobStore
from trafficmgr.runtimes.contract import EVERYTHING, LogQuery, RuntimeFailure
from trafficmgr.runtimes.memory import MemoryRuntime

CANARY = "canary-3f9a"


class World:
    """Workers and a supervisor that need nothing."""

    def restart_worker(self, start_id: str) -> None: ...

    def stop(self) -> None: ...


class Rig:
    """A controller's parts, wired as service/controller.py does."""

    def __init__(
        self, folder: Path, settings: Settings, journal: Journal, tasks: asyncio.TaskGroup
    ) -> None:
        self.clock, self.runtime, self.settings = Clock(), MemoryRuntime(), settings
        self.verdicts: tuple[Verdict, ...] = ()
        self.loop = Loop(
            mind=Mind(Fleet()),
            journal=journal,
            clock=self.clock,
            act=self.act,
            look=lambda _fleet: None,
        )
        tell = self.loop.tell
        link = Link(state_dir=settings.state_dir, tell=tell, clock=self.clock)
        self.hands = self._made_hands(link, tasks)
        self.store = BlobStore(folder / "store")
        registries = Images(self.store, registry_access(settings))
        watch = ImageWatch(tell=tell, clock=self.clock)

        async def trouble(*_: object) -> None: ...

        self.house = LiveHouse(
            loop=self.loop,
            link=link,
            journal=journal,
            runtime=self.runtime,
            supervisor=World(),
            registry=lambda _state: [],
            configuring=Configuring(
                settings,
                loop=self.loop,
                clock=self.clock,
                link=link,
                images=watch,
                poller=Poller(registries, on_seen=watch.on_seen, on_trouble=trouble),
                registries=registries,
            ),
            clock=self.clock,
            state_dir=settings.state_dir,
            listen={},
            tasks=tasks,
            verdicts=lambda name: self.verdicts if name == "shop" else (),
        )

    def _made_hands(self, link: Link, tasks: asyncio.TaskGroup) -> Hands:
        tell = self.loop.tell
        return Hands(
            tasks=tasks,
            runtime=self.runtime,
            workers=link,
            supervisor=World(),
            tell=tell,
            clock=self.clock,
            instance="test",
            secrets=SecretStore({"token": FromEnv(variable="T")}, {"T": CANARY}).read,
            calls=Calls(tell=tell, clock=self.clock),
            smoke=SmokeTest(tell=tell, clock=self.clock, doors=(), workers=1),
        )

    def act(self, commands: tuple[AnyCommand, ...]) -> None:
        self.hands.act(commands)

    async def begin(self) -> None:
        """Let two groups of a first revision run that needs secrets, limits and volumes."""
        settings = self.settings.endpoints["shop"].settings
        (web,) = settings.template.containers
        web = web.but(
            env_from={"TOKEN": FromSecret(name="token")}, resources=Resources(memory_bytes=1024)
        )
        keys = Volume(name="keys", source=SecretFiles(files={"tls.key": "token"}))
        template = settings.template.but(containers=(web,), volumes=(keys,))
        image = ImageDigest(container="web", repository=web.image, digest="d", platform_digest="p")
        now = self.clock()
        for event in (
            events.ControllerStarted(at=now, boot_id="b", slots=1, address_pool="127.77.0.0/16"),
            events.SettingsApplied(
                at=now, endpoint="shop", settings=settings.but(template=template)
            ),
            events.WorkerConnected(at=now, slot=0, start_id="0-a"),
            events.RevisionSeen(
                at=now,
                endpoint="shop",
                revision=Revision(id="v1", template=template, images=(image,)),
            ),
        ):
            await self.loop.tell(event)
        await eventually(lambda: len(self.groups) == 2 and self.are_started())

    async def step(self) -> None:
        """Let v1 be stable, and v2 be in its first step, with a gate."""
        await self.be_ready()
        shop = self.loop.fleet.endpoints["shop"]
        gated = shop.settings.but(gates=Gates(max_error_rate=0.01))
        newer = shop.revisions["v1"].but(id="v2")
        for event in (
            events.SettingsApplied(at=self.clock(), endpoint="shop", settings=gated),
            events.RevisionSeen(at=self.clock(), endpoint="shop", revision=newer),
        ):
            await self.loop.tell(event)
        await eventually(lambda: len(self.groups) == 4 and self.are_started())
        await self.be_ready()

    async def be_ready(self) -> None:
        """Let all groups be ready for long enough."""
        for group in self.groups:
            await self.loop.tell(
                events.GroupReady(at=self.clock(), endpoint="shop", group=group.id)
            )
        self.clock.advance(30.0)
        await self.loop.tell(events.Woke(at=self.clock(), endpoint="shop"))

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.loop.fleet.endpoints["shop"].groups

    def is_held(self) -> bool:
        return self.loop.fleet.endpoints["shop"].table.http.is_held

    def are_started(self) -> bool:
        return all(group.phase == "started" for group in self.groups)

    async def lose(self, group: str, reason: str) -> Group:
        """Let a group end by itself; return the one that takes its place, once it runs."""
        await self.runtime.end(group, reason)
        await self.loop.tell(
            events.GroupEnded(at=self.clock(), endpoint="shop", group=group, reason=reason)
        )
        await eventually(self.replacements)
        self.clock.advance(30.0)  # more than a first back-off, less than the deadline
        await self.loop.tell(events.Woke(at=self.clock(), endpoint="shop"))
        await eventually(lambda: self.replacements() and self.are_started())
        return self.replacements()[0]

    def replacements(self) -> list[Group]:
        return [group for group in self.groups if group.replaces]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD)
    settings = load(file)
    (settings.state_dir / "tables").mkdir(parents=True)
    journal = await Journal.open(tmp_path / "journal.db")
    async with asyncio.TaskGroup() as tasks:
        made = Rig(tmp_path, settings, journal, tasks)
        async with running(made.loop):
            await made.begin()
            yield made
    made.store.close()
    await journal.close()


async def text_of(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


# -- secrets --------------------------------------------------------------------------------------


async def test_no_answer_has_the_value_of_a_secret(rig: Rig, tmp_path: Path) -> None:
    house, group = rig.house, rig.groups[0].id
    with_secrets = GOOD + "secrets: {token: {env: T}}\n"

    answers: list[Any] = [
        house.status(),
        await house.groups.show("shop", None),
        await house.groups.stats("shop", None),
        await house.events(None, 0, 1000),
        house.rollouts(None),
        house.why("shop"),
        await house.plan(tmp_path / "shop.yaml", with_secrets.encode()),
    ]

    assert rig.runtime.world.secrets[group].env("web") == {"TOKEN": CANARY}
    assert rig.runtime.world.secrets[group].files("keys") == {"tls.key": CANARY.encode()}
    assert CANARY not in json.dumps(answers)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


# -- show and status ------------------------------------------------------------------------------


async def test_show_has_states_of_the_runtime_and_events_of_the_journal(rig: Rig) -> None:
    first, second = rig.groups

    shown = await rig.house.groups.show("shop", None)
    only = await rig.house.groups.show("shop", second.id)

    assert [group["id"] for group in shown["groups"]] == [first.id, second.id]
    assert [group["id"] for group in only["groups"]] == [second.id]
    (container,) = only["groups"][0]["containers"]
    assert (container["state"], container["env"]["TOKEN"]) == ("Running", "(secret token)")
    assert [event["what"] for event in only["groups"][0]["events"]] == ["Started"]
    assert only["groups"][0]["previous"] is None


async def test_a_group_in_the_place_of_another_says_how_that_one_ended(rig: Rig) -> None:
    lost = rig.groups[0].id

    fresh = await rig.lose(lost, "exit code 3")

    shown = await rig.house.groups.show("shop", fresh.id)
    previous = shown["groups"][0]["previous"]
    assert (previous["group"], previous["what"], previous["why"]) == (lost, "Ended", "exit code 3")
    assert previous["at"]
    assert shown["groups"][0]["restarts"] == 1
    assert shown["groups"][0]["containers"][0]["restarts"] == 1


async def test_an_engine_that_is_away_is_said_and_the_rest_is_shown(rig: Rig) -> None:
    rig.runtime.world.is_away = True

    shown = await rig.house.groups.show("shop", None)

    assert "the engine is away" in shown["trouble"]
    assert shown["groups"][0]["containers"][0]["state"] == "Unknown"
    assert shown["groups"][0]["events"]


async def test_status_and_why_have_the_verdicts_of_now(rig: Rig) -> None:
    await rig.step()
    before = rig.house.why("shop")

    rig.verdicts = (
        Verdict(
            gate="max_error_rate",
            kind=VerdictKind.insufficient,
            at=rig.clock(),
            why="41 of 100 requests were answered",
            numbers={"finished": 41.0},
        ),
    )

    (shop,) = rig.house.status()["endpoints"]
    (gate,) = shop["rollout"]["gates"]
    assert (gate["why"], gate["numbers"]) == (
        "41 of 100 requests were answered",
        {"finished": 41.0},
    )
    assert "Gate max_error_rate has not seen enough: nothing was seen yet." in before
    after = rig.house.why("shop")
    assert "Gate max_error_rate has not seen enough: 41 of 100 requests were answered." in after


async def test_events_leave_checkpoints_out_unless_they_are_asked_for(rig: Rig) -> None:
    await rig.step()
    rollout = rig.loop.fleet.endpoints["shop"].rollout
    assert rollout is not None
    kept = Evidence(at=rig.clock(), stage=0)
    await rig.loop.tell(
        events.EvidenceKept(at=rig.clock(), endpoint="shop", rollout=rollout.id, evidence=kept)
    )

    without = await rig.house.events("shop", 0, 1000)
    everything = await rig.house.events("shop", 0, 1000, has_checkpoints=True)

    assert "EvidenceKept" not in {one["kind"] for one in without}
    assert [one for one in everything if one["kind"] != "EvidenceKept"] == without
    assert len(everything) == len(without) + 1


async def test_names_that_there_are_none_of_are_answered_with_those_there_are(rig: Rig) -> None:
    first, second = (group.id for group in rig.groups)

    with pytest.raises(UnknownNameError, match="no endpoint 'shap'; there is shop"):
        await rig.house.groups.show("shap", None)
    with pytest.raises(UnknownNameError, match=f"no group 'x'; it has {first}, {second}"):
        await rig.house.groups.stats("shop", "x")


async def test_status_says_which_of_the_runtimes_gaps_the_endpoint_feels(rig: Rig) -> None:
    (endpoint,) = rig.house.status()["endpoints"]

    assert [remark.partition(" ")[0] for remark in endpoint["remarks"]] == [
        "secret_files",
        "secret_env",
        "memory_limit",
    ]
    assert endpoint["remarks"][2] == "memory_limit can't be had here: the processes are imaginary"


# -- stats, exec, logs ----------------------------------------------------------------------------


async def test_stats_of_a_group_that_cannot_tell_say_why(rig: Rig) -> None:
    first, second = (group.id for group in rig.groups)
    del rig.runtime.world.statuses[second]

    found = await rig.house.groups.stats("shop", None)

    assert found["groups"][0] == {
        "id": first,
        "revision": "v1",
        "trouble": "",
        "containers": [
            {
                "name": "web",
                "cpu_s": 1.5,
                "memory_bytes": 2**20,
                "received_bytes": None,
                "sent_bytes": None,
            }
        ],
    }
    assert found["groups"][1]["containers"] == []
    assert f'there is no group "{second}"' in found["groups"][1]["trouble"]


async def test_exec_runs_in_the_runtime(rig: Rig) -> None:
    group = rig.groups[0].id

    session = await rig.house.groups.exec(group, "", ("echo", "hello"), has_tty=False)

    assert [item async for item in session.output()] == [(1, b"hello\n")]
    with pytest.raises(RuntimeFailure):
        await rig.house.groups.exec("nobody", "", ("echo",), has_tty=False)


async def test_previous_logs_are_those_of_the_group_whose_place_it_took(rig: Rig) -> None:
    lost, other = (group.id for group in rig.groups)
    await rig.runtime.say(lost, "last words")
    fresh = await rig.lose(lost, "exit code 3")
    await rig.runtime.say(fresh.id, "first words")
    logs = rig.house.groups.logs

    now = await text_of(logs(fresh.id, EVERYTHING, since_s=None, is_previous=False))
    before = await text_of(logs(fresh.id, EVERYTHING, since_s=None, is_previous=True))

    assert (now, before) == (b"first words\n", b"last words\n")
    with pytest.raises(UnknownNameError, match="took nobody's place"):
        logs(other, EVERYTHING, since_s=None, is_previous=True)
    with pytest.raises(UnknownNameError, match="no group 'nobody' now"):
        logs("nobody", EVERYTHING, since_s=None, is_previous=True)


async def test_since_counts_back_from_now(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[LogQuery] = []

    async def logs(_group: str, query: LogQuery) -> AsyncIterator[bytes]:
        queries.append(query)
        yield b""

    monkeypatch.setattr(rig.runtime, "logs", logs)
    monkeypatch.setattr(rig.house.groups, "_wall", lambda: 1000.0)
    wanted = LogQuery(container="web", tail=3)

    await text_of(rig.house.groups.logs("g", wanted, since_s=300.0, is_previous=False))
    await text_of(rig.house.groups.logs("g", wanted, since_s=None, is_previous=False))

    assert queries == [wanted.but(since=700.0), wanted]


async def test_an_operator_holds_requests_and_releases_them(rig: Rig) -> None:
    await rig.be_ready()

    held = await rig.house.ask(Verb.hold, "shop")

    assert held.startswith("Requests are held. ")
    assert rig.is_held()
    with pytest.raises(NotPossibleNowError, match="held already"):
        await rig.house.ask(Verb.hold, "shop")


async def test_requests_that_were_released_are_not_held(rig: Rig) -> None:
    await rig.be_ready()
    await rig.house.ask(Verb.hold, "shop")

    released = await rig.house.ask(Verb.release, "shop")

    assert "held" not in released
    assert not rig.is_held()
    with pytest.raises(NotPossibleNowError, match="not held"):
        await rig.house.ask(Verb.release, "shop")
