"""A running service gets another config: all of it or nothing, and a later controller knows."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from support.config_support import GOOD, changed, with_lines
from support.controller_support import Clock, running

from trafficmgr.config.load import ConfigError, load
from trafficmgr.config.settings import Settings
from trafficmgr.controller import accepted
from trafficmgr.controller.accepted import keep, settings_at_start
from trafficmgr.controller.configuring import Configuring, registry_access
from trafficmgr.controller.images import ImageWatch
from trafficmgr.controller.link import Link
from trafficmgr.controller.loop import Loop, Mind
from trafficmgr.controller.recovery import forget_tables
from trafficmgr.core.errors import NotPossibleNowError, TrafficmgrError
from trafficmgr.core.events import ControllerStarted
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.routing import Zones
from trafficmgr.core.state import EndpointState
from trafficmgr.core.traffic import Front
from trafficmgr.journal.sqlite import Journal
from trafficmgr.registry.images import Images, Resolved
from trafficmgr.registry.poller import Poller
from trafficmgr.registry.store import BlobStore

IMAGE = "registry.example.com/shop/web"
TWO = (
    GOOD
    + """\
  blog:
    hosts: [blog.apps.test]
    group: {containers: [{name: web, image: registry.example.com/blog:stable, ports: [8080]}]}
"""
)


class NotingPoller(Poller):
    """A poller that never polls, and notes which images it was told to ask for at once."""

    def __init__(self, images: Images, watch: ImageWatch) -> None:
        async def trouble(*_: object) -> None: ...

        super().__init__(images, on_seen=watch.on_seen, on_trouble=trouble)
        self.poked: list[str] = []

    def poke(self, repository: str, tag: str) -> None:
        self.poked.append(f"{repository}:{tag}")

    def watched(self) -> list[str]:
        return [f"{image.repository}:{image.tag}" for image in self.status()]


class House:
    """A controller's parts around a `Configuring`, on a real journal."""

    def __init__(self, folder: Path, journal: Journal, settings: Settings) -> None:
        self.file = settings.path
        self.state_dir = settings.state_dir
        self.journal = journal
        clock = Clock()
        self.loop = Loop(
            mind=Mind(Fleet()),
            journal=journal,
            clock=clock,
            act=lambda _commands: None,
            look=lambda _fleet: None,
        )
        self.store = BlobStore(folder / "store")
        images = Images(self.store, registry_access(settings))
        self.watch = ImageWatch(tell=self.loop.tell, clock=clock)
        self.poller = NotingPoller(images, self.watch)
        self.configuring = Configuring(
            settings,
            loop=self.loop,
            clock=clock,
            link=Link(state_dir=self.state_dir, tell=self.loop.tell, clock=clock),
            images=self.watch,
            poller=self.poller,
            registries=images,
            follow=lambda given: self.followed.append((given, list(self.loop.fleet.endpoints))),
        )
        self.followed: list[tuple[Settings, list[str]]] = []

    async def begin(self) -> None:
        await self.loop.tell(
            ControllerStarted(at=1000.0, boot_id="boot-1", slots=1, address_pool="127.77.0.0/16")
        )
        await self.configuring.tell_all()
        self.configuring.watch_all()

    async def apply(self, text: str) -> None:
        await self.configuring.apply(self.file, text.encode())

    async def told(self) -> list[str]:
        """Return the kinds of all events so far."""
        return [stored.entry.kind for stored in await self.journal.events(limit=1000)]

    def state(self, endpoint: str) -> EndpointState:
        return self.loop.fleet.endpoints[endpoint]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD)
    (tmp_path / "state").mkdir()
    journal = await Journal.open(tmp_path / "journal.db")
    made = House(tmp_path, journal, load(file))
    async with running(made.loop):
        await made.begin()
        yield made
    made.store.close()
    await journal.close()


# -- apply ----------------------------------------------------------------------------------------


async def test_only_what_differs_is_told(house: House) -> None:
    before = await house.told()

    await house.apply(TWO)
    await house.apply(TWO.replace("replicas: 2", "replicas: 3"))
    await house.apply(f"max_concurrent: 1\n{TWO}")
    await house.apply(f"max_concurrent: 1\n{TWO}")

    told = (await house.told())[len(before) :]
    assert told == ["SettingsApplied"] * 2 + ["LimitsApplied", "SettingsApplied"]
    assert house.state("shop").settings.replicas == 2
    assert house.loop.fleet.max_concurrent == 1


async def test_an_endpoint_that_is_no_longer_there_is_removed_and_may_come_back(
    house: House,
) -> None:
    await house.apply(TWO)
    await house.apply(GOOD)
    assert house.state("blog").is_removed

    await house.apply(TWO)
    assert not house.state("blog").is_removed


@pytest.mark.parametrize("text", ["endpoints: [", TWO + "replica: 3\n", ""])
async def test_a_config_with_a_mistake_anywhere_changes_nothing(house: House, text: str) -> None:
    before, settings = house.loop.fleet, house.configuring.settings

    with pytest.raises(ConfigError):
        await house.apply(text)

    assert house.loop.fleet is before
    assert house.configuring.settings is settings
    assert not (house.state_dir / accepted.NAME).exists()


async def test_a_config_that_needs_a_restart_changes_nothing(house: House) -> None:
    before = house.loop.fleet

    with pytest.raises(
        NotPossibleNowError,
        match=r"changes address_pool from 127\.77\.0\.0/16 to 127\.78\.0\.0/16, which needs a",
    ):
        await house.apply(f"address_pool: 127.78.0.0/16\n{TWO}")

    assert house.loop.fleet is before
    assert not (house.state_dir / accepted.NAME).exists()


async def test_a_secret_stays_as_long_as_groups_may_be_started_with_it(house: House) -> None:
    """Without it a lost group of the stable revision could not be replaced."""
    secrets = "secrets: {token: {env: TOKEN}, key: {env: KEY}}\n"
    group = ["env: {TOKEN: {value_from: {secret: token}}}", "mounts: [{volume: keys, path: /k}]"]
    text = secrets + with_lines(*group, after="ports: [8080]").replace(
        "      replicas: 2\n",
        "      replicas: 2\n      volumes: [{name: keys, secret: {k: key}}]\n",
    )
    await house.apply(text)
    await seen(house)
    (revision,) = {group.revision for group in house.state("shop").groups}
    before, settings = house.loop.fleet, house.configuring.settings

    with pytest.raises(NotPossibleNowError) as caught:
        await house.apply(f"secrets: {{key: {{env: KEY}}}}\n{GOOD}")

    assert str(caught.value).startswith(
        f'{house.file} no longer has secret "token", with which revision {revision[:8]} of shop'
    )
    assert house.loop.fleet is before
    assert house.configuring.settings is settings
    assert [
        one.secret for one in (await house.configuring.plan(house.file, GOOD.encode())).needed
    ] == [
        "key",
        "token",
    ]
    await house.apply(text.replace("env: TOKEN}", "file: token}"))


async def test_a_secret_that_no_group_runs_with_may_go(house: House) -> None:
    await house.apply(f"secrets: {{token: {{env: TOKEN}}}}\n{GOOD}")
    await seen(house)

    await house.apply(GOOD)

    assert house.configuring.settings.secrets == {}


async def test_what_else_goes_by_the_settings_follows_them(house: House) -> None:
    """Before anything is told: a group that is started then has its secrets as they are now."""
    await house.apply(f"keep_logs: 1h\n{TWO}")

    assert [(s.keep_logs_s, known) for s, known in house.followed] == [(3600, ["shop"])]


async def test_a_disk_that_is_full_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before, settings = house.loop.fleet, house.configuring.settings
    monkeypatch.setattr(accepted, "replace_file", full)

    with pytest.raises(TrafficmgrError, match=r"No space left on device\. Nothing is changed"):
        await house.apply(TWO)

    assert house.loop.fleet is before
    assert house.configuring.settings is settings


async def test_it_is_kept_before_anybody_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in between is healed by the next controller; the other way round it would not be."""
    kept: list[bool] = []

    def noting(*_: object, **__: object) -> None:
        kept.append("blog" in house.loop.fleet.endpoints)

    monkeypatch.setattr(accepted, "replace_file", noting)
    await house.apply(TWO)

    assert kept == [False]


async def test_two_at_once_are_applied_one_after_the_other(house: House) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(house.apply(TWO))
        tasks.create_task(house.apply(GOOD))

    assert list(house.configuring.settings.endpoints) == ["shop"]
    assert house.state("blog").is_removed
    assert house.poller.watched() == [f"{IMAGE}:stable"]


async def test_a_plan_tells_nobody(house: House) -> None:
    before = house.loop.fleet

    plan = await house.configuring.plan(house.file, TWO.encode())

    assert [one.name for one in plan.endpoints] == ["blog", "shop"]
    assert house.loop.fleet is before
    assert not (house.state_dir / accepted.NAME).exists()


async def test_zones_are_published_under_a_new_generation_if_they_differ(house: House) -> None:
    await house.apply(TWO)
    assert not (house.state_dir / "tables" / "zones").exists()

    await house.apply(TWO.replace("ns: [ns1.apps.test]", "ns: [ns2.apps.test]"))
    assert b"ns2.apps.test" in (house.state_dir / "tables" / "zones").read_bytes()


async def test_how_connections_are_served_is_published_as_it_runs(house: House) -> None:
    await house.apply(f"http: {{idle: 5s}}\n{TWO}")

    data = (house.state_dir / "tables" / "zones").read_bytes()
    assert msgspec.msgpack.decode(data, type=Zones).front == Front(idle_s=5.0)


async def test_how_an_endpoint_is_served_changes_its_table(house: House) -> None:
    before = house.state("shop").table

    await house.apply(GOOD.replace("    group:", "    http: {max_body: 1MiB}\n    group:"))

    table = house.state("shop").table
    assert (table.generation, table.http.max_body_bytes) == (before.generation + 1, 1024 * 1024)


async def test_a_certificate_that_is_not_there_changes_nothing(house: House) -> None:
    tls = "tls: {certificates: [{certificate: absent.pem, key: absent.key}]}\n"

    with pytest.raises(ConfigError, match=r"absent\.pem can't be read"):
        await house.apply(tls + GOOD.replace("  http:", '  https: ["127.0.0.1:8443"]\n  http:'))

    assert not (house.state_dir / accepted.NAME).exists()


# -- images ---------------------------------------------------------------------------------------


async def seen(house: House, repository: str = IMAGE, digest: str = "sha256:1") -> None:
    found = Resolved(digest=digest, platform_digest=digest)
    await house.watch.on_seen(repository, "stable", found)


async def test_a_changed_group_is_a_new_revision_without_asking_the_registry(house: House) -> None:
    await seen(house)
    first = house.state("shop").newest

    await house.apply(with_lines("env: {GREETING: hello}", after="ports: [8080]"))

    state = house.state("shop")
    assert state.newest not in {"", first}
    assert state.revisions[state.newest].template.containers[0].env == {"GREETING": "hello"}


async def test_a_new_endpoint_with_an_image_that_is_known_starts_at_once(house: House) -> None:
    await seen(house)

    await house.apply(TWO.replace("registry.example.com/blog", IMAGE))

    assert house.state("blog").newest


async def test_images_are_watched_and_not_watched_as_configured(house: House) -> None:
    await house.apply(TWO.replace("stable", "other"))
    assert house.poller.watched() == ["registry.example.com/blog:other", f"{IMAGE}:other"]

    await house.apply(GOOD)
    assert house.poller.watched() == [f"{IMAGE}:stable"]


async def test_images_of_init_containers_are_watched_too(house: House) -> None:
    line = "init_containers: [{name: first, image: registry.example.com/shop/first:1}]"

    await house.apply(with_lines(line, after="replicas: 2"))

    assert house.poller.watched() == ["registry.example.com/shop/first:1", f"{IMAGE}:stable"]


async def test_an_endpoint_that_is_gone_hears_of_no_image(house: House) -> None:
    await house.apply(TWO)
    await house.apply(GOOD)
    before = await house.told()

    await seen(house, "registry.example.com/blog")

    assert await house.told() == before


async def test_a_registry_that_is_reached_anew_is_asked_at_once(house: House) -> None:
    """Whatever was wrong with its password may be well now."""
    await house.apply(f"registries: {{registry.example.com: {{insecure: true}}}}\n{TWO}")
    assert house.poller.poked == [f"{IMAGE}:stable"]

    await house.apply(f"registries: {{registry.example.com: {{insecure: true}}}}\n{TWO}")
    assert house.poller.poked == [f"{IMAGE}:stable"]


async def test_a_new_controller_forgets_the_tables_of_endpoints_that_are_gone(
    house: House,
) -> None:
    folder = house.state_dir / "tables"
    folder.mkdir()
    for name in ("shop.table", "blog.table", "zones"):
        (folder / name).touch()

    forget_tables(house.state_dir, house.loop.fleet)

    assert sorted(path.name for path in folder.iterdir()) == ["shop.table", "zones"]


# -- what the next controller starts with ---------------------------------------------------------


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / accepted.SUPERVISOR).write_text('{"pid": 1}\n')
    return folder


def file_with(folder: Path, text: str) -> Path:
    file = folder / "shop.yaml"
    file.write_text(text)
    return file


def test_a_file_is_read_once_in_a_run(tmp_path: Path, state_dir: Path) -> None:
    file = file_with(tmp_path, GOOD)
    first = settings_at_start(state_dir, file)

    file.write_text("endpoints: [")
    assert settings_at_start(state_dir, file) == first

    file.unlink()
    assert settings_at_start(state_dir, file) == first


def test_the_next_run_reads_it_again(tmp_path: Path, state_dir: Path) -> None:
    file = file_with(tmp_path, GOOD)
    settings_at_start(state_dir, file)
    file.write_text(changed(("replicas: 2", "replicas: 3")))

    (state_dir / accepted.SUPERVISOR).write_text('{"pid": 2}\n')

    assert settings_at_start(state_dir, file).endpoints["shop"].settings.replicas == 3


def test_relative_paths_go_by_the_file_that_was_applied(tmp_path: Path, state_dir: Path) -> None:
    file = file_with(tmp_path, GOOD)
    settings_at_start(state_dir, file)
    other = tmp_path / "other" / "shop.yaml"
    text = "registries: {r.test: {username: ci, password_file: ./secret}}\n" + GOOD
    keep(state_dir, other, text.encode())

    settings = settings_at_start(state_dir, file)

    assert settings.path == other
    assert settings.registries["r.test"].password_file == tmp_path / "other" / "secret"


def test_a_certificate_that_is_just_replaced_does_not_keep_a_controller_from_starting(
    tmp_path: Path, state_dir: Path
) -> None:
    """What was accepted is not looked at again: workers serve on with what they have."""
    file = file_with(tmp_path, GOOD)
    settings_at_start(state_dir, file)
    tls = "tls: {certificates: [{certificate: apps.pem, key: apps.key}]}\n"
    text = tls + GOOD.replace("  http:", '  https: ["127.0.0.1:8443"]\n  http:')
    keep(state_dir, file, text.encode())
    (tmp_path / "apps.pem").write_text("half of a cert")

    assert settings_at_start(state_dir, file).front.certificates


@pytest.mark.parametrize("garbage", [b"", b"{", b'{"run": 1}', b"\xff"])
def test_what_can_not_be_read_does_not_keep_a_controller_from_starting(
    tmp_path: Path, state_dir: Path, garbage: bytes
) -> None:
    file = file_with(tmp_path, GOOD)
    (state_dir / accepted.NAME).write_bytes(garbage)

    assert list(settings_at_start(state_dir, file).endpoints) == ["shop"]


def test_nobody_knows_whose_it_is_without_a_supervisor(tmp_path: Path, state_dir: Path) -> None:
    (state_dir / accepted.SUPERVISOR).unlink()
    file = file_with(tmp_path, GOOD)
    settings_at_start(state_dir, file)
    file.write_text(TWO)

    assert list(settings_at_start(state_dir, file).endpoints) == ["shop", "blog"]


def test_a_full_disk_does_not_keep_a_controller_from_starting(
    tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accepted, "replace_file", full)

    found = settings_at_start(state_dir, file_with(tmp_path, GOOD))

    assert list(found.endpoints) == ["shop"]


def test_only_the_owner_may_read_what_is_kept(tmp_path: Path, state_dir: Path) -> None:
    """A config may have secrets in `env`."""
    settings_at_start(state_dir, file_with(tmp_path, GOOD))

    assert (state_dir / accepted.NAME).stat().st_mode & 0o077 == 0
