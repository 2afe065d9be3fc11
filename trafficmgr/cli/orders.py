"""An order: what an operator asks of one endpoint, and what the service says to it."""

from pathlib import Path
from typing import Any

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show_answer


def ask(
    verb: str,
    endpoint: str,
    body: dict[str, Any] | None = None,
    *,
    as_json: bool,
    state_dir: Path | None,
    config: Path | None,
) -> None:
    """Ask the service that the options point to, and print its answer.

    Raises:
        CliError: There is no such service, or it refuses.
    """
    client = Client(find(state_dir, config))
    answer = client.post(f"/v1/endpoints/{segment(endpoint)}/{verb}", body)
    show_answer(answer, as_json=as_json)
