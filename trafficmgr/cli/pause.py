"""`trafficmgr pause`: keep a rollout where it is."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def pause(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Keep the rollout where it is: no step, no deadline, until `resume` or `promote`.

    Gates go on judging, a hook that runs goes on, and no other is begun.
    """
    ask("pause", endpoint, as_json=as_json, state_dir=state_dir, config=config)
