"""`trafficmgr rollouts`: the history of rollouts and how each of them went."""

from trafficmgr.cli.client import Client
from trafficmgr.cli.options import AsJson, Config, MaybeEndpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show, show_json


def rollouts(
    endpoint: MaybeEndpoint = None,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show the rollouts so far, the newest last."""
    found = Client(find(state_dir, config)).get("/v1/rollouts", {"endpoint": endpoint})
    if as_json:
        show_json(found)
        return
    from trafficmgr.cli import show as pictures  # noqa: PLC0415  brings in rich

    show(pictures.rollouts(found))
