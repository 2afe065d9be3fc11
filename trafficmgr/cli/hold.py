"""`trafficmgr hold`: let requests wait."""

from trafficmgr.cli.options import AsJson, Config, Endpoint, StateDir
from trafficmgr.cli.orders import ask


def hold(
    endpoint: Endpoint,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Let requests wait in the proxy in place of being served, until `release`.

    For what clients had better not meet, such as a migration. A request waits
    for up to `http.hold.timeout`; tunnels and requests that were begun go on.
    """
    ask("hold", endpoint, as_json=as_json, state_dir=state_dir, config=config)
