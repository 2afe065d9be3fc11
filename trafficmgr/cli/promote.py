"""`trafficmgr promote`: take a rollout's next step now, or with --full all that are left."""

from typing import Annotated

import typer

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_answer

Full = Annotated[bool, typer.Option("--full", help="Skip all steps that are left.")]


def promote(
    endpoint: Endpoint,
    *,
    full: Full = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Take the rollout's next step now, without waiting for the hold to end."""
    client = Client(find(state_dir, config))
    answer = client.post(f"/v1/endpoints/{segment(endpoint)}/promote", {"full": full})
    show_answer(answer, as_json=as_json)
