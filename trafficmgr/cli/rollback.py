"""`trafficmgr rollback`: go back to the revision before."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def rollback(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Go back to the revision before: at once while it is warm, else it is started again."""
    ask("rollback", endpoint, as_json=as_json, state_dir=state_dir, config=config)
