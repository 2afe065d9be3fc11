"""`trafficmgr resume`: let a paused rollout go on."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def resume(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Let the rollout go on from where it was paused."""
    ask("resume", endpoint, as_json=as_json, state_dir=state_dir, config=config)
