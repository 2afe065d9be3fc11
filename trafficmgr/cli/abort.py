"""`trafficmgr abort`: undo a rollout now."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def abort(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Undo the rollout now: traffic goes back to the stable revision at once.

    No gate and no hook keeps it from that; a hook that can't be undone
    stays done.
    """
    ask("abort", endpoint, as_json=as_json, state_dir=state_dir, config=config)
