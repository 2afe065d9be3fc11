"""`trafficmgr retry`: try a failed revision again."""

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_answer


def retry(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Try the newest revision again, although it failed or was ignored."""
    client = Client(find(state_dir, config))
    answer = client.post(f"/v1/endpoints/{segment(endpoint)}/retry")
    show_answer(answer, as_json=as_json)
