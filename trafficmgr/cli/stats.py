"""`trafficmgr stats`: what the containers of an endpoint have used since they started."""

from typing import Any

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, MaybeGroup, StateDir
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show, show_json


def stats(
    endpoint: Endpoint,
    group: MaybeGroup = None,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show cpu seconds, memory and network of each container; network is its whole group's."""
    client = Client(find(state_dir, config))
    found = client.get(f"/v1/endpoints/{segment(endpoint)}/stats", {"group": group})
    if as_json:
        show_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from trafficmgr.cli.show_groups import stats as picture  # noqa: PLC0415  brings in rich

    show(picture(found))
