"""`trafficmgr status`: what runs, what gets which share of traffic, and what waits for what."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trafficmgr.cli.client import Client
from trafficmgr.cli.options import AsJson, Config, MaybeEndpoint, StateDir
from trafficmgr.cli.outcome import CliError
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import console, show, show_json

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_S = 0.5

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep it up to date; Ctrl-C ends.")]


def status(
    endpoint: MaybeEndpoint = None,
    *,
    watch: Watch = False,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show endpoints, revisions, weights and groups, and what each of them waits for."""
    client = Client(find(state_dir, config))

    def look() -> dict[str, Any]:
        return only(client.get("/v1/status"), endpoint)

    if as_json:
        show_json(look())
    elif watch and sys.stdout.isatty():
        keep_showing(lambda: _picture(look))
    else:
        show(_picture(look))


def only(data: dict[str, Any], endpoint: str | None) -> dict[str, Any]:
    """Return the status with one endpoint only, or all of it.

    Raises:
        CliError: There is no endpoint of that name.
    """
    if endpoint is None:
        return data
    every = data.get("endpoints", [])
    chosen = [one for one in every if one.get("name") == endpoint]
    if not chosen:
        names = ", ".join(sorted(str(one.get("name")) for one in every)) or "none"
        raise CliError(f'There is no endpoint "{endpoint}". There are: {names}.')
    return {**data, "endpoints": chosen}


def keep_showing(picture: Callable[[], "RenderableType"]) -> None:
    """Show a picture and renew it in place, until Ctrl-C.

    Once there was a first one, a service that can't be reached is shown in its place: whoever
    watches a restart wants to see it end.
    """
    from rich.live import Live  # noqa: PLC0415  slow; only a watcher needs it
    from rich.text import Text  # noqa: PLC0415  as above

    try:
        with Live(picture(), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_S)
                try:
                    live.update(picture(), refresh=True)
                except CliError as error:
                    live.update(Text(str(error), style="yellow"), refresh=True)
    except KeyboardInterrupt:
        return


def _picture(look: Callable[[], dict[str, Any]]) -> "RenderableType":
    from trafficmgr.cli import show as pictures  # noqa: PLC0415  brings in rich

    return pictures.status(look())
