"""Control groups: found by trying, limits as the kernel's files want them, nothing left behind.

What this machine mounts is used for real; version 2 with controllers, which few test machines have,
is a tree of plain files.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from conformance import next_end
from conformance_groups import FOR_EVER
from support.conformance_bench import EmbeddedGroups, said, shell
from support.runtime_support import DEADLINE_S, INSTANCE, eventually

from trafficmgr.core.template import Resources, RestartPolicy
from trafficmgr.runtimes.contract import ContainerState, GroupState
from trafficmgr.runtimes.embedded import cgroups, identity, shimgroup, stats
from trafficmgr.runtimes.embedded.cgroups import PIDS_MAX, Cgroups, Hierarchy, hierarchies
from trafficmgr.runtimes.embedded.folders import GroupFolder
from trafficmgr.runtimes.embedded.mounts import Mounted, kind_at, mounts

pytestmark = pytest.mark.processes

MIB = 2**20
EATS = "dd if=/dev/zero of=/dev/null bs=200M count=1"
"""Wants all of it at once."""
HAS_ALL = not Cgroups(f"trafficmgr-{INSTANCE}-look").gaps
needs_all = pytest.mark.skipif(
    not HAS_ALL, reason="a gap of this runtime: no control groups here that we may write to"
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedGroups]:
    bench = EmbeddedGroups(tmp_path)
    yield bench
    await bench.close()


@pytest.fixture
def own() -> Iterator[Cgroups]:
    """Yield control groups of this test's own."""
    own = Cgroups(f"trafficmgr-{INSTANCE}-{os.getpid()}")
    yield own
    own.sweep(lambda _: False)


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def ours(bench: EmbeddedGroups) -> set[str]:
    """Return the folders of this bench's runtime, in all hierarchies."""
    name = bench.open()._cgroups._name
    return {str(path) for one in hierarchies(mounts()) for path in Path(one.root).glob(name)}


# -- what is mounted ------------------------------------------------------------------------------


def test_hierarchies_are_those_that_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    mounted = [
        Mounted(point="/c/cpu", kind="cgroup", options=("rw", "cpu", "cpuacct")),
        Mounted(point="/c/blkio", kind="cgroup", options=("rw", "blkio")),
        Mounted(point=str(tmp_path), kind="cgroup2", options=("rw",)),
        Mounted(point="/tmp", kind="tmpfs", options=("rw",)),
    ]

    assert hierarchies(mounted) == (
        Hierarchy(root="/c/cpu", version=1, controllers=("cpu", "cpuacct")),
        Hierarchy(root=str(tmp_path), version=2, controllers=("cpu", "memory", "pids")),
    )


def test_kind_of_a_path_is_that_of_the_last_mount_above_it(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    source = tmp_path / "mountinfo"
    source.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:1 / {tmp_path} rw - xfs x rw\n"
        f"3 2 0:2 / {tmp_path}/a\\040b rw shared:1 - overlay o rw,lowerdir=x\n"
        f"4 3 0:3 / {tmp_path}/a\\040b rw - tmpfs t rw\n"
    )

    assert kind_at(tmp_path / "a b", source) == "tmpfs"
    assert kind_at(tmp_path, source) == "xfs"
    assert kind_at(Path("/usr"), source) == "ext4"


def test_where_nothing_is_mounted_the_gaps_say_so() -> None:
    none = Cgroups("trafficmgr-none", found=())

    assert set(none.gaps) == {"cpu_limit", "memory_limit", "group_limits", "process_limit"}
    assert none.gaps["cpu_limit"] == "control group cpu: it is mounted nowhere here"
    assert none.folders("shop-1", "web") == ()


def test_hierarchy_that_is_closed_to_us_is_a_gap_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    closed = Hierarchy(root=str(tmp_path / "file"), version=1, controllers=("memory",))

    gaps = Cgroups("trafficmgr-closed", found=(closed,)).gaps

    assert "can't be written to (Not a directory)" in gaps["memory_limit"]
    assert "cpu_limit" in gaps


# -- version 2, as plain files --------------------------------------------------------------------


class FakeTree:
    """A version 2 hierarchy in which the kernel's part is played by us."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        (root / "cgroup.subtree_control").write_text("")
        made = Path.mkdir

        def mkdir(path: Path, *, exist_ok: bool = False) -> None:
            made(path, exist_ok=exist_ok)
            for name in ("cgroup.subtree_control", "memory.max", "memory.swap.max", "pids.max"):
                (path / name).touch()
            (path / "cpu.max").touch()

        monkeypatch.setattr(Path, "mkdir", mkdir)

    def text(self, name: str) -> str:
        return (self.root / name).read_text()


def test_version_2_has_its_limits_at_the_group_and_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = FakeTree(tmp_path, monkeypatch)
    hierarchy = Hierarchy(root=str(tmp_path), version=2, controllers=("cpu", "memory", "pids"))
    own = Cgroups("tm", found=(hierarchy,))

    own.create(
        "shop-1",
        "web",
        Resources(cpu=1.5, memory_bytes=256 * MIB),
        Resources(cpu=0.25, memory_bytes=64 * MIB),
    )

    assert own.gaps == {}
    assert own.folders("shop-1", "web") == (f"{tmp_path}/tm/shop-1/web",)
    assert tree.text("tm/shop-1/cpu.max") == "150000 100000"
    assert tree.text("tm/shop-1/memory.max") == str(256 * MIB)
    assert tree.text("tm/shop-1/web/cpu.max") == "25000 100000"
    assert tree.text("tm/shop-1/web/memory.max") == str(64 * MIB)
    assert tree.text("tm/shop-1/web/memory.swap.max") == "0"
    assert tree.text("tm/shop-1/web/pids.max") == str(PIDS_MAX)
    for above in (".", "tm", "tm/shop-1"):
        assert tree.text(f"{above}/cgroup.subtree_control"), above


def test_version_2_says_what_was_used(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (tmp_path / "memory.current").write_text("5000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000000\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")

    assert cgroups.usage([str(tmp_path)]) == cgroups.Usage(cpu_s=2.5, memory_bytes=4_000_000)
    assert shimgroup.oom_kills([str(tmp_path)]) == 2
    assert cgroups.usage([]) is None


# -- for real -------------------------------------------------------------------------------------


@needs_all
def test_container_is_never_promised_more_cpu_than_its_group(own: Cgroups) -> None:
    """Version 1 refuses a quota above that of the folder above."""
    own.create("shop-1", "web", Resources(cpu=0.5), Resources(cpu=2.0))

    quotas = [
        int(shimgroup.read(f"{folder}/cpu.cfs_quota_us") or 50_000)
        for folder in own.folders("shop-1", "web")
    ]
    assert min(quotas) == 50_000


@needs_all
@pytest.mark.parametrize("hierarchy", hierarchies(mounts()), ids=lambda one: Path(one.root).name)
def test_kill_reaches_everyone_with_or_without_the_kernels_help(hierarchy: Hierarchy) -> None:
    """By `cgroup.kill`, or by a list of those who can't fork any more."""
    own = Cgroups(f"trafficmgr-{INSTANCE}-{os.getpid()}", found=(hierarchy,))
    own.create("shop-1", "web", Resources(), Resources())
    (folder,) = own.folders("shop-1", "web")
    gated = ["/bin/sh", "-c", "read -r go; setsid sleep 1000 & wait"]

    with subprocess.Popen(gated, stdin=subprocess.PIPE) as shell_process:
        assert shell_process.stdin is not None
        shimgroup.write(f"{folder}/cgroup.procs", str(shell_process.pid).encode())
        shell_process.stdin.write(b"go\n")
        shell_process.stdin.close()
        wait_until(lambda: len(shimgroup.pids([folder])) == 2)
        pids = shimgroup.pids([folder])
        shimgroup.kill([folder])
        code = shell_process.wait(DEADLINE_S)
    wait_until(lambda: not any(map(identity.of, pids)))
    shimgroup.remove([folder])

    assert code == -signal.SIGKILL
    assert not Path(folder).parents[1].exists()


@needs_all
async def test_groups_leave_no_control_group(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    web = bench.script("web", "setsid sleep 1000 & exec sleep 1000")
    await runtime.start(bench.group("shop-1", web))
    held = ours(bench)

    await runtime.stop("shop-1")

    assert held
    assert ours(bench) == set()


@needs_all
async def test_control_groups_of_a_lost_group_are_swept(bench: EmbeddedGroups) -> None:
    bench.open()._cgroups.create("lost-1", "web", Resources(), Resources())
    held = ours(bench)

    await bench.open().list()

    assert held
    assert ours(bench) == set()


@needs_all
async def test_killed_shim_leaves_nobody_behind(bench: EmbeddedGroups) -> None:
    """Not even who has another session and another environment: the control group knows."""
    runtime = bench.open()
    script = "env -i setsid sleep 1000 & env -i setsid sleep 1000 & wait"
    await runtime.start(bench.group("shop-1", bench.script("web", script)))
    (container,) = GroupFolder(bench.state_dir / "groups" / "shop-1").containers()
    process, known = container.process(), container.identity()
    assert process is not None
    assert known is not None
    await eventually(lambda: len(shimgroup.pids(process.cgroups)) == 3)
    pids = shimgroup.pids(process.cgroups)

    identity.send(known.shim, signal.SIGKILL)
    await next_end(runtime.watch())
    await runtime.stop("shop-1")

    assert not [pid for pid in pids if identity.of(pid) is not None]


@needs_all
async def test_child_that_is_killed_for_memory_is_not_its_containers_failure(
    bench: EmbeddedGroups,
) -> None:
    runtime = bench.open()
    web = bench.script(
        "web", f"{EATS}; echo survived; exit 0", resources=Resources(memory_bytes=40 * MIB)
    )
    await runtime.start(bench.group("job-1", web, restart=RestartPolicy.never))

    told = await next_end(runtime.watch())

    (status,) = told.containers
    (container,) = GroupFolder(bench.state_dir / "groups" / "job-1").containers()
    record = container.exit()
    assert record is not None
    assert record.oom_kills == 1
    assert (told.state, status.reason, status.exit_code) == (GroupState.completed, "Completed", 0)
    assert "survived" in await said(runtime, "job-1")


@needs_all
async def test_oom_is_told_with_its_exit_code(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    web = bench.script("web", f"exec {EATS}", resources=Resources(memory_bytes=40 * MIB))
    await runtime.start(bench.group("shop-1", web))

    told = await next_end(runtime.watch())

    (status,) = told.containers
    assert (status.state, status.reason) == (ContainerState.terminated, "OOMKilled")
    assert status.exit_code == 128 + signal.SIGKILL
    assert told.reason.startswith("OOMKilled: it needed more memory than its limit")


@needs_all
async def test_commands_count_for_their_container(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))

    where = await shell(runtime, "shop-1", "web", "cat /proc/self/cgroup")

    name = runtime._cgroups._name
    assert f"/{name}/shop-1/web" in where


# -- without them ---------------------------------------------------------------------------------


@pytest.fixture
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda _: ())


@pytest.mark.usefixtures("no_cgroups")
async def test_usage_is_added_up_where_there_are_none(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    once = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'"
    web = bench.script("web", f"{once}; echo done; while :; do :; done")
    await runtime.start(bench.group("shop-1", web))

    async with asyncio.timeout(DEADLINE_S):
        while True:
            (used,) = await runtime.stats("shop-1")
            if (used.cpu_s or 0.0) > 0.3:
                break
            await asyncio.sleep(0.02)

    assert 100_000 < (used.memory_bytes or 0) < 100 * MIB
    assert used.received_bytes is None
    assert "cpu_limit" in runtime.gaps


@pytest.mark.usefixtures("no_cgroups")
async def test_commands_end_with_their_group_where_there_are_none(bench: EmbeddedGroups) -> None:
    """By their mark: they are no descendants of the shim, and the controller may be another."""
    runtime = bench.open()
    await runtime.start(bench.group("shop-1", bench.script("web", FOR_EVER)))
    session = await runtime.exec("shop-1", "web", ("sleep", "1000"))

    await bench.open().stop("shop-1")

    async with asyncio.timeout(DEADLINE_S):
        assert await session.exit_code() == 128 + signal.SIGKILL
    await session.close()


def test_processes_that_are_gone_have_used_nothing_more() -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()

    assert stats._times(gone.pid) == (0, 0, 0, 0)
    assert stats._resident_pages(gone.pid) == 0
