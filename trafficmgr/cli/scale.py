"""`trafficmgr scale`: another number of groups."""

from typing import Annotated

import typer

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask

Replicas = Annotated[
    int, typer.Argument(metavar="N", min=1, max=1000, help="How many groups there shall be.")
]


def scale(
    endpoint: Endpoint,
    replicas: Replicas,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Run N groups from now on, until the config says another number."""
    ask(
        "scale",
        endpoint,
        {"replicas": replicas},
        as_json=as_json,
        state_dir=state_dir,
        config=config,
    )
