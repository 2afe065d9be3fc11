"""`trafficmgr logs`: what a group's containers wrote."""

import contextlib
import json
import sys
from typing import Annotated

import typer

from trafficmgr.cli.client import Client, Params, segment
from trafficmgr.cli.options import AsJson, Config, Follow, Group, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_json

Tail = Annotated[
    int | None,
    typer.Option("--tail", "-n", min=0, help="Only the last N lines.", show_default=False),
]


def logs(
    group: Group,
    *,
    tail: Tail = None,
    follow: Follow = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Print what a group wrote, byte for byte; with --follow and --json, a JSON string a line."""
    client = Client(find(state_dir, config))
    params: Params = {"tail": tail, "follow": 1 if follow else None}
    lines = client.stream(f"/v1/groups/{segment(group)}/logs", params)
    if as_json and not follow:
        show_json({"group": group, "lines": [_text(line) for line in lines]})
        return
    with contextlib.suppress(KeyboardInterrupt):
        for line in lines:
            written = json.dumps(_text(line)).encode() + b"\n" if as_json else line
            sys.stdout.buffer.write(written)
            sys.stdout.buffer.flush()


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\n")
