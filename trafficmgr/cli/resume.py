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
    """Let the rollout go on from where it was paused.

    If it was paused by itself, a gate gets as much time again for its
    verdict, a hook whose end nobody knows is taken as done, and if
    something had failed, no gate decides about it any more.
    """
    ask("resume", endpoint, as_json=as_json, state_dir=state_dir, config=config)
