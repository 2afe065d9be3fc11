"""`trafficmgr release`: serve what waits."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def release(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Serve the requests that wait after `hold`, and let no other wait."""
    ask("release", endpoint, as_json=as_json, state_dir=state_dir, config=config)
