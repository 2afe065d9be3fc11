"""Parts of the Docker runtime that need no engine: what is seen, refused, limited, missing."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from trafficmgr.core.template import (
    ContainerTemplate,
    GroupTemplate,
    ImageDigest,
    Resources,
    RestartPolicy,
)
from trafficmgr.runtimes.contract import (
    ContainerState,
    GroupSpec,
    GroupState,
    RuntimeFailure,
    RuntimeUnknownError,
)
from trafficmgr.runtimes.docker.cgroups import GroupLimits
from trafficmgr.runtimes.docker.engine import Engine, EngineFacts
from trafficmgr.runtimes.docker.errors import EngineRefusal, refused
from trafficmgr.runtimes.docker.gaps import gaps
from trafficmgr.runtimes.docker.images import Images, no_pull, pin
from trafficmgr.runtimes.docker.names import check, spec_of, spec_text
from trafficmgr.runtimes.docker.pausing import Pauses
from trafficmgr.runtimes.docker.seen import SeenContainer, SeenGroup, exit_text
from trafficmgr.runtimes.docker.shape import environment

MIB = 2**20
CGROUPFS = EngineFacts(api_version="1.41", cgroup_driver="cgroupfs", cgroup_version="1")


def spec(*names: str, restart: RestartPolicy = RestartPolicy.always) -> GroupSpec:
    containers = tuple(ContainerTemplate(name=name, image="r/x", ports=(80,)) for name in names)
    return GroupSpec(
        group="shop-1",
        instance="0123456789",
        endpoint="shop",
        revision="r1",
        address="198.18.0.2",
        port=80,
        template=GroupTemplate(containers=containers, restart=restart),
        images=(),
    )


def seen(name: str, code: int | None = None, at: float = 1.0) -> SeenContainer:
    return SeenContainer(
        id=name,
        name=name,
        role="pause" if not name else "member",
        was_started=True,
        is_running=code is None,
        exit_code=code,
        pid=None if code is not None else 7,
        started_at=0.5,
        finished_at=None if code is None else at,
    )


def group(of: GroupSpec, pause: SeenContainer | None, *others: SeenContainer) -> SeenGroup:
    return SeenGroup(
        group=of.group,
        endpoint=of.endpoint,
        spec=of,
        pause=pause,
        others={one.name: one for one in others},
    )


# -- what is seen ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (137, "killed by SIGKILL"),
        (143, "killed by SIGTERM"),
        (255, "exit code 255"),
    ],
)
def test_exit_code_in_words(code: int, text: str) -> None:
    assert exit_text(code) == text


def test_reason_is_the_end_that_came_first_and_mattered() -> None:
    of = spec("a", "b", "c", restart=RestartPolicy.on_failure)

    status = group(of, seen(""), seen("a", 0, 1.0), seen("b", 4, 3.0), seen("c", 5, 2.0)).status()

    assert (status.state, status.reason) == (GroupState.exited, 'container "c": exit code 5')


def test_pause_that_ended_first_is_the_reason() -> None:
    status = group(spec("web"), seen("", 137, 1.0), seen("web", 137, 2.0)).status()

    assert status.reason == "the pause container ended (killed by SIGKILL)"


def test_completed_group_stays_completed_when_its_pause_ends() -> None:
    of = spec("job", restart=RestartPolicy.never)

    status = group(of, seen("", 0, 9.0), seen("job", 4, 2.0)).status()

    assert (status.state, status.reason) == (GroupState.completed, "exit code 4")


def test_group_that_is_being_started_runs_and_waits() -> None:
    status = group(spec("web"), seen("")).status()

    assert status.state is GroupState.running
    assert [(one.state, one.reason) for one in status.containers] == [
        (ContainerState.waiting, "ContainerCreating"),
    ]


def test_members_without_their_pause_are_remains() -> None:
    found = SeenGroup(
        group="shop-1", endpoint="shop", spec=None, pause=None, others={"web": seen("web")}
    )

    assert not found.is_whole
    assert found.status().state is GroupState.exited


def test_a_group_that_is_seen_while_it_is_being_removed_has_ended() -> None:
    """One of its containers is gone already; that ended the controller once."""
    found = group(spec("web", "side"), seen(""), seen("side", 0))

    assert found.status().state is GroupState.exited
    assert found.status().reason == 'container "side": exit code 0'


# -- what the engine says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, "No such image: x", EngineRefusal),
        (400, "invalid mount config", EngineRefusal),
        (500, "unable to find user x", EngineRefusal),
        (500, "write /var/lib/x: no space left on device", RuntimeUnknownError),
        (503, "daemon is shutting down", RuntimeUnknownError),
        (400, "client version 1.41 is too old. Minimum is 1.44", RuntimeUnknownError),
    ],
)
def test_answer_is_final_unless_the_engine_is_in_trouble(
    status: int, said: str, kind: type[Exception]
) -> None:
    assert type(refused("unix:///x", status, said)) is kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("manifest unknown: manifest unknown", RuntimeFailure),
        ("unauthorized: authentication required", RuntimeFailure),
        ("dial tcp 127.0.0.1:9: connect: connection refused", RuntimeUnknownError),
        ("net/http: TLS handshake timeout", RuntimeUnknownError),
        ("received unexpected HTTP status: 503 Service Unavailable", RuntimeUnknownError),
        ("toomanyrequests: rate exceeded", RuntimeUnknownError),
    ],
)
def test_registry_that_is_away_is_told_from_an_image_that_is(
    said: str, kind: type[Exception]
) -> None:
    error = no_pull("r/x@sha256:1", said)

    assert type(error) is kind
    assert said in str(error)


# -- names and the environment --------------------------------------------------------------------


def test_spec_survives_its_label() -> None:
    assert spec_of(spec_text(spec("web"))) == spec("web")


@pytest.mark.parametrize("name", ["a.b", "a/b", "", "-a", "a b"])
def test_name_that_could_mean_another_is_refused(name: str) -> None:
    with pytest.raises(RuntimeFailure, match="may only have letters"):
        check(spec(name))


def test_pin_is_a_tag_that_every_engine_takes() -> None:
    image = ImageDigest(
        container="web", repository="r/x", digest="sha256:1", platform_digest="sha256:" + "ab" * 32
    )

    assert pin("1f2e", "Shop Nr.1", image) == "trafficmgr.local/1f2e/shop-nr.1:abababababab"


def test_ours_come_last_in_the_environment() -> None:
    sidecar = ContainerTemplate(
        name="side", image="r/x", ports=(9000, 9001), env={"HOST": "x", "A": "1"}
    )

    assert environment(spec("web"), sidecar) == {
        "A": "1",
        "HOST": "0.0.0.0",
        "PORT": "9000",
        "LOCALHOST": "127.0.0.1",
    }


# -- limits of groups -----------------------------------------------------------------------------


def test_limits_in_a_tree_for_each_controller(tmp_path: Path) -> None:
    for tree in ("memory", "cpu,cpuacct"):
        (tmp_path / tree).mkdir()
    limits = GroupLimits("0123456789", root=tmp_path)

    limits.make("shop-1", Resources(cpu=1.5, memory_bytes=64 * MIB))

    name = limits.parent("shop-1")
    assert name == "/tm-01234567-shop-1"
    assert (tmp_path / f"memory{name}/memory.limit_in_bytes").read_text() == str(64 * MIB)
    assert (tmp_path / f"cpu,cpuacct{name}/cpu.cfs_quota_us").read_text() == "150000"
    assert limits.gap(CGROUPFS) == ""


def test_limits_in_one_tree(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    limits = GroupLimits("0123456789", root=tmp_path)

    limits.make("shop-1", Resources(cpu=0.5, memory_bytes=64 * MIB))

    folder = tmp_path / limits.parent("shop-1")[1:]
    assert (folder / "memory.max").read_text() == str(64 * MIB)
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert not (folder / "memory.swap.max").exists()


def test_what_a_crashed_engine_left_of_a_cgroup_is_removed(tmp_path: Path) -> None:
    limits = GroupLimits("0123456789", root=tmp_path)
    for tree in ("memory", "pids"):
        (tmp_path / f"{tree}{limits.parent('shop-1')}/container").mkdir(parents=True)
        (tmp_path / f"{tree}{limits.parent('shop-11')}").mkdir(parents=True)

    limits.remove("shop-1")
    limits.remove("never-was")

    assert [path.name for path in tmp_path.glob("*/*")] == ["tm-01234567-shop-11"] * 2


def test_cgroups_that_are_not_the_engines_are_a_gap(tmp_path: Path) -> None:
    """As where the engine is a virtual machine behind a socket of ours."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    limits = GroupLimits("0123456789", root=tmp_path)

    assert not limits.holds("shop-1", 1)

    assert limits.gap(CGROUPFS) == "the engine's containers are in other cgroups than ours"


@pytest.mark.parametrize(
    ("facts", "behaviour", "why"),
    [
        (CGROUPFS.but(cgroup_driver="systemd"), "group_limits", "leaves cgroups to systemd"),
        (CGROUPFS.but(is_rootless=True), "group_limits", "without root"),
        (CGROUPFS.but(is_podman=True), "group_limits", "Podman"),
        (CGROUPFS.but(has_memory_limit=False), "memory_limit", "can't limit memory"),
        (CGROUPFS.but(has_cpu_limit=False), "cpu_limit", "can't limit cpu"),
        (CGROUPFS.but(has_process_limit=False), "process_limit", "can't limit processes"),
    ],
)
def test_gaps_are_what_the_engine_says(facts: EngineFacts, behaviour: str, why: str) -> None:
    assert why in gaps(facts, GroupLimits("x"))[behaviour]
    assert gaps(None, GroupLimits("x")) == {}


class SlowEngine:
    """An engine whose every call takes a turn of the loop, and which counts them."""

    def __init__(self) -> None:
        self.calls = 0

    async def known(self) -> EngineFacts:
        await asyncio.sleep(0)
        return CGROUPFS.but(architecture="amd64")

    async def call(self, _work: object) -> None:
        await asyncio.sleep(0)
        self.calls += 1


async def test_groups_that_start_at_once_import_the_pause_image_once() -> None:
    """Twice, and one of the two images is left without a name."""
    engine = SlowEngine()
    pauses = Pauses(cast("Engine", engine), cast("Images", None), "")

    found = await asyncio.gather(pauses.get(), pauses.get(), pauses.get())

    assert len(set(found)) == 1
    assert engine.calls == 1
