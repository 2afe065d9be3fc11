"""`trafficmgr resume`: let a paused rollout go on."""

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_answer


def resume(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Let the rollout go on from where it was paused."""
    client = Client(find(state_dir, config))
    answer = client.post(f"/v1/endpoints/{segment(endpoint)}/resume")
    show_answer(answer, as_json=as_json)
