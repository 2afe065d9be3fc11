"""`trafficmgr why`: what an endpoint waits for now, in sentences."""

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_json


def why(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Say what the endpoint waits for now, and what to type if it waits for you."""
    client = Client(find(state_dir, config))
    answer = client.get(f"/v1/endpoints/{segment(endpoint)}/why")
    if as_json:
        show_json(answer)
    else:
        print("\n".join(answer["says"]))
