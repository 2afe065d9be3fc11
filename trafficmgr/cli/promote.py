"""`trafficmgr promote`: take a rollout's next step now, or with --full all that are left."""

from typing import Annotated

import typer

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask

Full = Annotated[bool, typer.Option("--full", help="Skip all steps that are left.")]


def promote(
    endpoint: Endpoint,
    *,
    full: Full = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Take the rollout's next step now: neither the hold nor a gate's verdict is waited for.

    A rollout that was paused by itself goes on; if something had failed, no
    gate decides about it any more.
    """
    ask("promote", endpoint, {"full": full}, as_json=as_json, state_dir=state_dir, config=config)
