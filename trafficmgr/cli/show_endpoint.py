"""`trafficmgr show`: the groups of an endpoint, their containers, and what happened to them."""

from typing import Any

from trafficmgr.cli import terminal
from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, Endpoint, MaybeGroup, StateDir
from trafficmgr.cli.place import find


def show(
    endpoint: Endpoint,
    group: MaybeGroup = None,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show groups with states, images, volumes, limits, probes and counted events.

    Secrets are shown by name only.
    """
    client = Client(find(state_dir, config))
    found = client.get(f"/v1/endpoints/{segment(endpoint)}/show", {"group": group})
    if as_json:
        terminal.show_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from trafficmgr.cli.show_groups import groups as picture  # noqa: PLC0415  brings in rich

    terminal.show(picture(found))
