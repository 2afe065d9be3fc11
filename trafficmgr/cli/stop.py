"""`trafficmgr stop`: end the service; the groups only if that is asked for."""

import sys
import time
from typing import Annotated

import typer

from trafficmgr.cli.client import Client
from trafficmgr.cli.options import AsJson, Config, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_answer

LOOK_S = 0.1

Groups = Annotated[bool, typer.Option("--groups", help="Drain and end the groups first.")]
Wait = Annotated[bool, typer.Option(help="Return when the service has ended.")]


def stop(
    *,
    groups: Groups = False,
    wait: Wait = True,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """End the service. Without --groups the groups run on, and the next `run` adopts them."""
    from trafficmgr.cli.supervision import is_alive, supervisor_of  # noqa: PLC0415  other verbs don't

    place = find(state_dir, config)
    supervisor = supervisor_of(place.state_dir)
    answer = Client(place).post("/v1/stop", {"groups": groups})
    show_answer(answer, as_json=as_json)
    sys.stdout.flush()
    while wait and supervisor is not None and is_alive(supervisor):
        time.sleep(LOOK_S)
