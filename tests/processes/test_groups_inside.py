"""Into the groups of a whole installation: show, logs, exec, stats, liveness; secrets nowhere."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.service_support import ARGV, DEADLINE_S, Installation, installed, wait_for

pytestmark = pytest.mark.processes

CANARY = "canary-3f9a"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Installation]:
    """Yield one whose groups have a secret, and live until a file of that name is there."""
    folder = tmp_path_factory.mktemp("insides")
    (folder / "token").write_text(f"{CANARY}\n")
    alive = ["test", "!", "-e", f"{folder}/sick"]
    with installed(folder, registry) as installation:
        text = installation.config.read_text().replace(
            "          ports: [8080]\n",
            "          ports: [8080]\n"
            "          env: {TOKEN: {value_from: {secret: token}}}\n"
            "          liveness: {every: 100ms, fall: 2,"
            f" exec: {{command: {json.dumps(alive)}}}}}\n",
        )
        installation.config.write_text(f"secrets: {{token: {{file: ./token}}}}\n{text}")
        installation.push("v1")
        installation.start().wait_until_serving("v1")
        yield installation


def typed(
    house: Installation, *words: str, command: tuple[str, ...] = (), stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run a verb; what follows `--` comes last."""
    place = ("--config", str(house.config))
    return subprocess.run(
        [*ARGV, *words, *place, *(["--", *command] if command else [])],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=DEADLINE_S,
    )


def shown(house: Installation) -> list[dict[str, Any]]:
    answer = typed(house, "show", "shop", "--json")
    assert answer.returncode == 0, answer.stderr
    groups: list[dict[str, Any]] = json.loads(answer.stdout)["groups"]
    return groups


def a_ready_group(house: Installation) -> str:
    return str(next(group["id"] for group in shown(house) if group["ready"]))


def ready_after(house: Installation, why: str) -> dict[str, Any]:
    """Wait for a ready group whose predecessor ended like this; return it as it is shown."""

    def found() -> dict[str, Any] | None:
        fits = (one for one in shown(house) if one["ready"] and one["previous"])
        return next((one for one in fits if why in one["previous"]["why"]), None)

    one: dict[str, Any] = wait_for(f"a ready group after {why!r}", found)
    return one


def test_a_command_inside_a_group_has_its_environment_and_nobody_else_its_secrets(
    house: Installation,
) -> None:
    group = a_ready_group(house)
    script = 'read word; echo "$word $TOKEN $PORT"; exit 7'

    done = typed(house, "exec", group, command=("sh", "-c", script), stdin=b"hello\n")

    assert (done.returncode, done.stdout) == (7, f"hello {CANARY} 8080\n".encode()), done.stderr
    answers = [
        typed(house, *words).stdout
        for words in (
            ("show", "shop", "--json"),
            ("status", "--json"),
            ("events", "--json"),
            ("plan", str(house.config), "--json"),
            ("stats", "shop", "--json"),
            ("logs", group),
        )
    ]
    assert all(answers)
    assert CANARY.encode() not in b"".join(answers)
    assert CANARY not in house.log()
    for file in house.state_dir.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


def test_what_a_group_uses_and_wrote_can_be_looked_at(house: Installation) -> None:
    group = a_ready_group(house)

    (used,) = json.loads(typed(house, "stats", "shop", group, "--json").stdout)["groups"]
    plain = typed(house, "logs", group, "-c", "web").stdout
    dated = typed(house, "logs", group, "--timestamps", "--since", "10m").stdout

    (web,) = used["containers"]
    assert web["cpu_s"] > 0
    assert web["memory_bytes"] > 1_000_000
    assert plain
    first, _, text = dated.splitlines()[0].partition(b" ")
    assert first.startswith(b"20"), dated
    assert text == plain.splitlines()[0]
    assert typed(house, "logs", group, "-c", "nobody").returncode == 1


def test_a_group_that_was_killed_is_replaced_and_says_how_the_one_before_ended(
    house: Installation,
) -> None:
    group = a_ready_group(house)
    before = typed(house, "logs", group).stdout

    os.kill(pid_of_app(house, group), signal.SIGKILL)

    fresh = ready_after(house, "SIGKILL")
    assert fresh["restarts"] == 1
    assert fresh["previous"]["group"] == group
    assert typed(house, "logs", fresh["id"], "--previous").stdout.startswith(before)


def test_a_group_whose_liveness_fails_is_replaced(house: Installation) -> None:
    (house.folder / "sick").touch()
    wait_for("the event", lambda: b"liveness of container" in typed(house, "events").stdout)
    (house.folder / "sick").unlink()

    fresh = ready_after(house, "liveness")

    why = 'liveness of container "web" failed: test ended with exit code 1'
    assert fresh["previous"]["why"] == why


def pid_of_app(house: Installation, group: str) -> int:
    """Return the process of a group's app; its probes run commands beside it."""
    mark = house.mark + f"{group}/web/".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_ours = entry.name.isdigit() and mark in (entry / "environ").read_bytes()
            if is_ours and b"app.py" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise AssertionError(f"no process has {mark!r}")
