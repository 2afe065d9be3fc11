"""`trafficmgr events`: what was observed, in order."""

import contextlib
import json
import sys
from typing import Annotated, Any

import typer

from trafficmgr.cli.client import Client, Params
from trafficmgr.cli.options import AsJson, Config, Follow, MaybeEndpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import console, show, show_json

PATH = "/v1/events"

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="The last N events.")]
Everything = Annotated[
    bool, typer.Option("--all", help="Also what gates judge by, as it is kept every 10 s.")
]


def events(
    endpoint: MaybeEndpoint = None,
    *,
    follow: Follow = False,
    everything: Everything = False,
    limit: Limit = 100,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show what was observed; with --follow and --json, one JSON document a line."""
    client = Client(find(state_dir, config))
    params: Params = {"endpoint": endpoint, "limit": limit, "all": 1 if everything else None}
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(client, params, as_json=as_json)
    elif as_json:
        show_json(client.get(PATH, params))
    else:
        _show(client.get(PATH, params))


def _show(found: list[dict[str, Any]]) -> None:
    from trafficmgr.cli.show import event  # noqa: PLC0415  brings in rich

    for one in found:
        show(event(one))


def _follow(client: Client, params: Params, *, as_json: bool) -> None:
    from trafficmgr.cli.show import event  # noqa: PLC0415  brings in rich

    terminal = console()
    for line in client.stream(PATH, {**params, "follow": 1}):
        if as_json:
            print(line.decode().rstrip())
        else:
            terminal.print(event(json.loads(line)))
        sys.stdout.flush()
