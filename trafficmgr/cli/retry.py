"""`trafficmgr retry`: try a failed revision again."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def retry(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Try the newest revision again, although it failed or was ignored.

    A hook whose end nobody knows is done again; one that succeeded for this
    revision is not.
    """
    ask("retry", endpoint, as_json=as_json, state_dir=state_dir, config=config)
