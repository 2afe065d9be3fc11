"""Process mode's volumes, secrets and users: folders of the host, and who may look into them."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from conformance_groups import FOR_EVER
from support.conformance_bench import EmbeddedGroups, run, shell
from support.runtime_support import INSTANCE

from trafficmgr.core.template import EmptyDir, HostPath, Mount, SecretFiles, Volume
from trafficmgr.runtimes.contract import BEHAVIOURS, GroupSpec, RuntimeFailure, Secrets
from trafficmgr.runtimes.embedded import EmbeddedRuntime, vault
from trafficmgr.runtimes.embedded.folders import GroupFolder
from trafficmgr.runtimes.embedded.users import UnknownUserError, User, resolve
from trafficmgr.runtimes.embedded.vault import MEMORY

pytestmark = pytest.mark.processes

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
CANARY = "canary-9c41be02"
SECRETS = Secrets(env={"web": {"PASSWORD": CANARY}}, files={"keys": {"token": CANARY.encode()}})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedGroups]:
    bench = EmbeddedGroups(tmp_path)
    yield bench
    await bench.close()


def folder_of(bench: EmbeddedGroups) -> GroupFolder:
    return GroupFolder(bench.state_dir / "groups" / "shop-1")


def mounted(*names: str) -> tuple[Mount, ...]:
    return tuple(Mount(volume=name, path=f"/{name}") for name in names)


def secret_spec(bench: EmbeddedGroups, group: str = "shop-1") -> GroupSpec:
    return bench.group(
        group,
        bench.script("web", FOR_EVER, mounts=mounted("keys")),
        volumes=(Volume(name="keys", source=SecretFiles(files={"token": "t"})),),
    )


def secret_folders() -> set[Path]:
    """Return what is kept of secrets in memory by tests like these."""
    return set(MEMORY.glob(f"trafficmgr-{INSTANCE}-*/*"))


def test_gaps_are_behaviours_with_reasons(bench: EmbeddedGroups) -> None:
    gaps = bench.open().gaps

    assert set(gaps) <= set(BEHAVIOURS)
    assert all(gaps.values())
    assert {"mount_paths", "read_only_mounts", "isolated_network"} <= set(gaps)


# -- folders --------------------------------------------------------------------------------------


async def test_only_who_mounts_a_volume_is_told_where_it_is(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1",
        bench.script("web", FOR_EVER, mounts=mounted("my-data.1")),
        bench.script("side", FOR_EVER),
        volumes=(Volume(name="my-data.1", source=EmptyDir()),),
    )
    await runtime.start(spec)

    web = await shell(runtime, "shop-1", "web", 'echo "$VOLUME_MY_DATA_1"')
    side = await shell(runtime, "shop-1", "side", 'echo "$VOLUME_MY_DATA_1"')

    assert web == str(folder_of(bench).path / ".volumes" / "my-data.1")
    assert side == ""


async def test_folder_that_its_owner_cannot_enter_is_removed_too(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    spec = bench.group(
        "shop-1",
        bench.script("web", FOR_EVER, mounts=mounted("d")),
        volumes=(Volume(name="d", source=EmptyDir()),),
    )
    await runtime.start(spec)
    await shell(runtime, "shop-1", "web", 'mkdir -p "$VOLUME_D/a/b"; chmod 0 "$VOLUME_D/a"')

    await runtime.stop("shop-1")

    assert list((bench.state_dir / "groups").iterdir()) == []


async def test_host_path_that_is_not_there_is_said(bench: EmbeddedGroups) -> None:
    spec = bench.group(
        "shop-1",
        bench.script("web", FOR_EVER, mounts=mounted("d")),
        volumes=(Volume(name="d", source=HostPath(path="/no/such/folder")),),
    )

    with pytest.raises(RuntimeFailure, match='volume "d", but there is no /no/such/folder'):
        await bench.open().start(spec)

    assert not folder_of(bench).path.exists()


# -- secrets --------------------------------------------------------------------------------------


async def test_secrets_are_forgotten_with_their_group(bench: EmbeddedGroups) -> None:
    runtime, before = bench.open(), secret_folders()
    await runtime.start(secret_spec(bench), SECRETS)
    held = secret_folders() - before
    path = await shell(runtime, "shop-1", "web", 'echo "$VOLUME_KEYS"')

    await runtime.stop("shop-1")

    assert [folder.name for folder in held] == ["shop-1"]
    assert path.startswith(f"{MEMORY}/trafficmgr-{INSTANCE}-")
    assert not held & secret_folders()


async def test_secrets_that_a_lost_group_left_are_swept(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    await runtime.start(secret_spec(bench, "shop-2"), SECRETS)
    gone = runtime._vault.folder("shop-1", "web", "keys")
    gone.mkdir(parents=True)

    await bench.open().list()

    assert not gone.parents[1].exists()
    assert (gone.parents[2] / "shop-2" / "web" / "keys" / "token").is_file()


async def test_secret_that_was_given_no_value_is_a_failed_start(bench: EmbeddedGroups) -> None:
    runtime = bench.open()

    with pytest.raises(RuntimeFailure, match='volume "keys", but no value was given for token'):
        await runtime.start(secret_spec(bench))

    assert not folder_of(bench).path.exists()


async def test_secret_that_no_environment_can_hold_is_refused_without_its_value(
    bench: EmbeddedGroups,
) -> None:
    secrets = Secrets(env={"web": {"PASSWORD": f"{CANARY}\0"}})

    with pytest.raises(RuntimeFailure, match="PASSWORD has a NUL byte") as info:
        await bench.open().start(bench.group("shop-1", bench.script("web", FOR_EVER)), secrets)

    assert CANARY not in str(info.value)


async def test_secrets_are_only_kept_in_memory(
    bench: EmbeddedGroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the folder for them is on a disk there are none, and the gap says so."""
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(vault, "kind_at", lambda _: "ext4")  # whatever the tests' folder is on
    runtime = EmbeddedRuntime(
        state_dir=bench.state_dir, instance=INSTANCE, pull=bench.images.pull, memory=disk
    )

    assert "secret_files" in runtime.gaps
    with pytest.raises(RuntimeFailure, match="no memory-backed file system"):
        await runtime.start(secret_spec(bench), SECRETS)

    assert list(disk.iterdir()) == []


async def test_folder_that_someone_else_made_gets_no_secrets(bench: EmbeddedGroups) -> None:
    runtime = bench.open()
    place = runtime._vault.folder("shop-1", "web", "keys").parents[2]
    place.symlink_to("/nowhere")
    try:
        with pytest.raises(RuntimeFailure, match="someone else made it"):
            await runtime.start(secret_spec(bench), SECRETS)
    finally:
        place.unlink()


# -- users ----------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that other users may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@is_root
async def test_user_reads_its_secrets_and_writes_to_shared_folders(open_folder: Path) -> None:
    bench = EmbeddedGroups(open_folder)
    runtime = bench.open()
    mounts = mounted("keys", "shared")
    spec = bench.group(
        "shop-1",
        bench.script("web", FOR_EVER, mounts=mounts, user="1234:2345"),
        bench.script("side", FOR_EVER, mounts=mounts, user="nobody"),
        bench.script("root", FOR_EVER, mounts=mounts),
        volumes=(
            Volume(name="keys", source=SecretFiles(files={"token": "t"})),
            Volume(name="shared", source=EmptyDir()),
        ),
    )
    try:
        await runtime.start(spec, SECRETS)

        seen = {}
        for name in ("web", "side", "root"):
            text = f'id -u; cat "$VOLUME_KEYS/token"; echo; echo hi > "$VOLUME_SHARED/{name}"'
            seen[name] = (await shell(runtime, "shop-1", name, text)).split()
        path = await shell(runtime, "shop-1", "web", 'echo "$VOLUME_KEYS/token"')
        stolen = await run(runtime, "shop-1", "side", "cat", path)
    finally:
        await bench.close()

    assert seen == {"web": ["1234", CANARY], "side": ["65534", CANARY], "root": ["0", CANARY]}
    assert stolen.code != 0


@is_root
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", None),
        ("1234", User(uid=1234, gid=1234)),
        ("1234:2345", User(uid=1234, gid=2345)),
        ("app", User(uid=77, gid=78, home="/srv/app")),
        ("77", User(uid=77, gid=78, home="/srv/app")),
        ("app:crew", User(uid=77, gid=99, home="/srv/app")),
        ("root", User(uid=0, gid=0, home="/root")),
    ],
)
def test_names_are_the_images_and_then_the_hosts(
    tmp_path: Path, written: str, expected: User | None
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("half a line\napp:x:77:78:An app:/srv/app:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("crew:x:99:\n")

    assert resolve(written, str(tmp_path)) == expected


@is_root
def test_nobody_is_looked_up_through_a_link_that_leads_out(tmp_path: Path) -> None:
    """The image's etc/passwd is the image's, whatever it points to."""
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    (tmp_path / "evil").write_text("evil:x:0:0::/:/bin/sh\n")
    (tmp_path / "rootfs" / "etc" / "passwd").symlink_to("../../evil")

    with pytest.raises(UnknownUserError, match="evil"):
        resolve("evil", str(tmp_path / "rootfs"))


@is_root
async def test_unknown_user_is_a_failed_start(bench: EmbeddedGroups) -> None:
    web = bench.script("web", FOR_EVER, user="no-such-user")

    with pytest.raises(RuntimeFailure, match='user "no-such-user" is known neither'):
        await bench.open().start(bench.group("shop-1", web))
