"""The program that trafficmgr brings into containers on Docker: pause, run, put; and its image."""

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dockerd import Dockerd
from support.registry_support import need
from support.runtime_support import eventually

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.docker import pause

FOLDER = Path(pause.__file__).parent / "program"
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program for this machine, executable."""
    path = tmp_path_factory.mktemp("program") / "init"
    path.write_bytes(pause.program(pause.pause_image(os.uname().machine).architecture))
    path.chmod(0o755)
    return str(path)


def done(
    *command: str | Path, given: bytes = b"", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(part) for part in command],
        input=given,
        env=env,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )


def ended(process: "subprocess.Popen[bytes]") -> int:
    """Return its exit code; one that does not end is killed, for which the test fails."""
    try:
        return process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


# -- what is shipped ------------------------------------------------------------------------------


def test_the_shipped_bytes_belong_to_the_shipped_source() -> None:
    noted = [line.split() for line in (FOLDER / "sums").read_text().splitlines()[1:]]

    assert {name for _, name in noted} == {"init.c", "init-amd64", "init-arm64"}
    for sha256, name in noted:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == sha256, (
            f"{name} is not what program/build made: run it and commit what it makes"
        )


def test_the_program_is_small_and_needs_nothing() -> None:
    for architecture in ("amd64", "arm64"):
        content = pause.program(architecture)

        assert content.startswith(b"\x7fELF")
        assert len(content) < 5000
        assert b"/ld-" not in content  # it asks for no dynamic loader


def _has_the_compiler() -> bool:
    """Whether this machine has the compiler that made the bytes."""
    compiler = shutil.which("x86_64-linux-gnu-gcc")
    if compiler is None:
        return False
    version = done(compiler, "--version").stdout.decode().splitlines()[0]
    return (FOLDER / "sums").read_text().startswith(f"# {version}\n")


if _has_the_compiler():  # defined only here, as a skipped test is a failure in CI

    def test_the_same_compiler_makes_the_same_bytes(tmp_path: Path) -> None:
        made = tmp_path / "init"

        assert done(FOLDER / "build", "amd64", made).returncode == 0

        assert made.read_bytes() == pause.program("amd64")


# -- pause ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def as_process_1(init: str) -> Iterator[int]:
    """Run `init pause` as the first process of a pid namespace; yield its pid out here."""
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [need("unshare"), *rights, "--pid", "--fork", "--kill-child", init, "pause"]
    process = subprocess.Popen(command)
    try:
        asyncio.run(
            eventually(lambda: any(is_waiting(pid, init) for pid in children_of(process.pid)))
        )
        yield children_of(process.pid)[0]
    finally:
        process.kill()
        process.wait()


def is_waiting(pid: int, init: str) -> bool:
    """Whether it has become the program and sleeps."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
        started = Path(f"/proc/{pid}/cmdline").read_bytes().startswith(init.encode())
        return started and status.startswith("S")
    return False


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_pause_ends_on_a_signal(init: str, how: signal.Signals) -> None:
    with subprocess.Popen([init, "pause"]) as process:
        asyncio.run(eventually(lambda: is_waiting(process.pid, init)))

        process.send_signal(how)

        assert ended(process) == 0


@pytest.mark.processes
def test_pause_ends_on_sigterm_as_process_1(init: str) -> None:
    """The kernel spares a process 1 that has no handler: the trap of ten seconds per stop."""
    with as_process_1(init) as pid:
        os.kill(pid, signal.SIGTERM)

        asyncio.run(eventually(lambda: not Path(f"/proc/{pid}").exists()))


@pytest.mark.processes
def test_pause_reaps_orphans(init: str) -> None:
    with as_process_1(init) as pid:
        orphan = "(sleep 1000 >/dev/null 2>&1 & echo $!); exit"
        rights = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        done(need("nsenter"), *rights, "-t", str(pid), "--pid", "sh", "-c", orphan)
        [inherited] = children_of(pid)

        os.kill(inherited, signal.SIGKILL)

        asyncio.run(eventually(lambda: not children_of(pid)))  # a zombie would be listed
        assert Path(f"/proc/{pid}").exists()


# -- run ------------------------------------------------------------------------------------------


def test_run_adds_the_variables_of_the_file(init: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"TOKEN=s3cret\0PEM=one\ntwo = three\0COLOUR=blue\0EMPTY=\0COLOUR=red")

    ran = done(init, "run", file, "--", "/usr/bin/env", "-0", env={"COLOUR": "green", "A": "b"})

    assert sorted(ran.stdout.split(b"\0")[:-1]) == [
        *(b"A=b", b"COLOUR=red", b"EMPTY=", b"PEM=one\ntwo = three", b"TOKEN=s3cret"),
    ]


def test_run_becomes_the_program_with_its_arguments(init: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"")
    say = 'echo $$; for a; do echo "<$a>"; done; exit 7'

    process = subprocess.Popen(
        [init, "run", str(file), "--", "/bin/sh", "-c", say, "sh", "a b", "", "--"],
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=DEADLINE_S)

    assert output.decode().splitlines() == [str(process.pid), "<a b>", "<>", "<-->"]
    assert process.returncode == 7


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{0}/none:{0}/file:{0}/second:{0}/third", "second"),
        ("{0}/barred:{0}/third", "third"),
        ("{0}/third:{0}/second", "third"),
        (":{0}/third", "here"),
        ("{0}/none:", "here"),
    ],
)
def test_run_looks_for_the_program_in_path(
    init: str, tmp_path: Path, path: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "second", "third", "barred"):
        (tmp_path / folder).mkdir()
        tool = tmp_path / folder / "tool"
        tool.write_text(f"#!/bin/sh\necho {folder}\n")
        tool.chmod(0o644 if folder == "barred" else 0o755)
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "env").write_text(f"PATH={path.format(tmp_path)}")
    monkeypatch.chdir(tmp_path / "here")

    ran = done(init, "run", tmp_path / "env", "--", "tool", env={"PATH": "/bin"})

    assert ran.stdout.decode() == f"{found}\n"


def test_run_looks_in_the_usual_folders_without_a_path(init: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"A=b")

    ran = done(init, "run", tmp_path / "env", "--", "env", env={})

    assert ran.stdout == b"A=b\n"


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("nothing", 127, "no such file"),
        ("/no/such/program", 127, "no such file"),
        ("", 127, "no such file"),
        ("{0}/text", 126, "permission denied"),
        ("{0}", 126, "permission denied"),
        ("{0}/junk", 126, "no program for this machine"),
    ],
)
def test_run_says_why_a_program_does_not_start(
    init: str, tmp_path: Path, program: str, code: int, why: str
) -> None:
    (tmp_path / "env").write_bytes(b"TOKEN=s3cret")
    (tmp_path / "text").write_text("words")
    (tmp_path / "junk").write_bytes(b"\1\2\3\4")
    (tmp_path / "junk").chmod(0o755)
    program = program.format(tmp_path)

    ran = done(init, "run", tmp_path / "env", "--", program)

    assert ran.returncode == code
    said = ran.stderr.decode()
    assert said.startswith(f'trafficmgr\'s init: cannot start "{program}": ')
    assert why in said
    assert "s3cret" not in said


def test_run_starts_nothing_without_its_secrets(init: str, tmp_path: Path) -> None:
    ran = done(init, "run", tmp_path / "none", "--", "echo", "started")

    assert (ran.returncode, ran.stdout) == (126, b"")
    assert f'cannot read "{tmp_path}/none": there is no such file' in ran.stderr.decode()


# -- put ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"s3cret\n", os.urandom(300_000)])
@pytest.mark.parametrize("has_size", [False, True])
def test_put_writes_its_input(
    init: str,
    tmp_path: Path,
    content: bytes,
    has_size: bool,
) -> None:
    file = tmp_path / "key"
    size = [str(len(content))] if has_size else []

    put = done(init, "put", file, "0400", str(os.getuid()), str(os.getgid()), *size, given=content)

    assert (put.returncode, put.stderr) == (0, b"")
    assert file.read_bytes() == content
    assert file.stat().st_mode & 0o7777 == 0o400
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.skipif("os.geteuid() != 0", reason="only root gives files away")
def test_put_gives_the_file_to_its_owner(init: str, tmp_path: Path) -> None:
    file = tmp_path / "key"

    done(init, "put", file, "4751", "1000", "2000", given=b"x")

    status = file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 2000, 0o4751)


def test_put_with_a_size_needs_no_end_of_input(init: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    put = subprocess.Popen(
        [init, "put", str(file), "400", str(os.getuid()), str(os.getgid()), "3"],
        stdin=subprocess.PIPE,
    )
    assert put.stdin is not None

    put.stdin.write(b"abc")
    put.stdin.flush()

    assert ended(put) == 0
    put.stdin.close()
    assert file.read_bytes() == b"abc"


def test_put_leaves_no_half_a_file_when_its_input_breaks_off(init: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"as it was")

    put = done(init, "put", file, "400", str(os.getuid()), str(os.getgid()), "10", given=b"half")

    assert put.returncode == 1
    assert b"the input ended too early. It was not written" in put.stderr
    assert file.read_bytes() == b"as it was"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_put_that_is_killed_leaves_no_half_a_file(init: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    command = [init, "put", str(file), "400", str(os.getuid()), str(os.getgid())]
    put = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert put.stdin is not None
    put.stdin.write(b"half")
    put.stdin.flush()
    part = tmp_path / "key.part"
    asyncio.run(eventually(lambda: part.exists() and part.stat().st_size > 0))

    put.kill()
    put.wait()
    put.stdin.close()

    assert not file.exists()
    assert part.stat().st_mode & 0o7777 == 0o600
    assert done(*command, given=b"whole").returncode == 0  # the next one is not in its way
    assert file.read_bytes() == b"whole"
    assert not part.exists()


@pytest.mark.skipif("os.geteuid() != 0", reason="only root mounts")
def test_put_says_that_the_volume_is_full(init: str, tmp_path: Path) -> None:
    small = 'mount -t tmpfs -o size=16k none "$PWD" && cd "$PWD" && "$0" put key 400 0 0; ls -A'

    put = done(
        need("unshare"), "--mount", "sh", "-c", f"cd {tmp_path}; {small}", init, given=bytes(10**5)
    )

    assert b"the volume is full. It was not written" in put.stderr
    assert put.stdout == b""  # not even a part of it is there


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "pause now",
        "run env",
        "run env -- ",
        "run env echo x",
        "put f",
        "put f 9 0 0",
        "put f 10000 0 0",
        "put f 400 x 0",
        "put f 400 0 -1",
        "put f 400 0 0 1k",
        "put f 400 0 0 99999999999999999999",
        "put f 400 0 0 1 1",
    ],
)
def test_a_wrong_call_does_nothing(init: str, tmp_path: Path, arguments: str) -> None:
    ran = subprocess.run(
        [init, *arguments.split()], cwd=tmp_path, capture_output=True, timeout=10, check=False
    )

    assert ran.returncode == 2
    assert ran.stderr.startswith(b"usage: init pause | ")
    assert not list(tmp_path.iterdir())


# -- the image ------------------------------------------------------------------------------------


def test_the_image_holds_the_program_and_nothing_else() -> None:
    image = pause.pause_image("x86_64")

    with tarfile.open(fileobj=io.BytesIO(image.tar)) as tar:
        entries = {f"/{entry.name}": entry for entry in tar.getmembers()}
        content = tar.extractfile(entries[pause.PROGRAM])
        assert content is not None
        assert content.read() == pause.program("amd64")

    assert list(entries) == ["/trafficmgr", pause.BIN, pause.PROGRAM]
    assert {(entry.uid, entry.gid, entry.mtime, entry.mode) for entry in entries.values()} == {
        (0, 0, 0, 0o755)
    }


def test_the_name_of_the_image_tells_what_is_in_it() -> None:
    one, same, other = (pause.pause_image(name) for name in ("amd64", "x86_64", "arm64"))

    assert one == same
    assert one.name == same.name
    assert one.name != other.name
    assert one.name.startswith("trafficmgr.local/pause:")


def test_an_architecture_without_a_program_is_refused_with_advice() -> None:
    with pytest.raises(RuntimeFailure, match=r"'riscv64'.*amd64 and arm64 only.*pause_image: "):
        pause.pause_image("riscv64")


@pytest.mark.docker
@pytest.mark.processes
def test_the_image_runs_on_an_engine(dockerd: Dockerd) -> None:
    with contextlib.closing(dockerd.client()) as client:
        image = pause.pause_image(client.version()["Arch"])
        client.import_image_from_data(
            image.tar, repository=pause.REPOSITORY, tag=image.tag, changes=list(image.changes)
        )
        host = client.create_host_config(network_mode="none", binds=[f"tests-bin:{pause.BIN}"])
        made = client.create_container(image.name, host_config=host)["Id"]
        client.start(made)

        asked = client.exec_create(made, [pause.PROGRAM, "run", "/none", "--", "x"])["Id"]
        said = client.exec_start(asked)  # from the volume: the engine has filled it
        client.stop(made, timeout=int(DEADLINE_S))

        assert b"cannot read" in said
        assert client.inspect_container(made)["State"]["ExitCode"] == 0  # it was not killed
        client.remove_container(made)
        client.remove_volume("tests-bin")
