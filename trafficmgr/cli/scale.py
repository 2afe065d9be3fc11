"""`trafficmgr scale`: another number of groups."""

from typing import Annotated

import typer

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_answer

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
    client = Client(find(state_dir, config))
    answer = client.post(f"/v1/endpoints/{segment(endpoint)}/scale", {"replicas": replicas})
    show_answer(answer, as_json=as_json)
