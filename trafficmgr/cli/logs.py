"""`trafficmgr logs`: what a group's containers wrote."""

import contextlib
import json
import sys
from typing import Annotated

import typer

from trafficmgr.cli.client import Client, Params, segment
from trafficmgr.cli.options import AsJson, ConfigByName, Container, Follow, Group, StateDir
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_json

Tail = Annotated[
    int | None,
    typer.Option("--tail", "-n", min=0, help="Only the last N lines.", show_default=False),
]
Since = Annotated[
    str,
    typer.Option(
        "--since", metavar="TIME", help="Only lines of the last 5m, say.", show_default=False
    ),
]
Timestamps = Annotated[
    bool, typer.Option("--timestamps", help="Begin each line with when it was written.")
]
Previous = Annotated[
    bool, typer.Option("--previous", "-p", help="Of the group whose place this one took.")
]


def logs(
    group: Group,
    *,
    container: Container = "",
    tail: Tail = None,
    since: Since = "",
    timestamps: Timestamps = False,
    previous: Previous = False,
    follow: Follow = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: ConfigByName = None,
) -> None:
    """Print what a group wrote, byte for byte; with --follow and --json, a JSON string a line."""
    params: Params = {
        "container": container or None,
        "tail": tail,
        "since_s": _seconds(since),
        "timestamps": 1 if timestamps else None,
        "previous": 1 if previous else None,
        "follow": 1 if follow else None,
    }
    client = Client(find(state_dir, config))
    lines = client.stream(f"/v1/groups/{segment(group)}/logs", params)
    if as_json and not follow:
        show_json({"group": group, "lines": [_text(line) for line in lines]})
        return
    with contextlib.suppress(KeyboardInterrupt):
        for line in lines:
            written = json.dumps(_text(line)).encode() + b"\n" if as_json else line
            sys.stdout.buffer.write(written)
            sys.stdout.buffer.flush()


def _seconds(since: str) -> str | None:
    if not since:
        return None
    from trafficmgr.config.problems import UnfitError  # noqa: PLC0415  seldom needed
    from trafficmgr.config.units import duration  # noqa: PLC0415  as above

    try:
        return str(duration(since))
    except UnfitError as error:
        text = f"--since {since!r} {error.predicate}; {error.hint}."
        raise CliError(text, ExitCode.bad_config) from error


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\n")
