"""`trafficmgr rollouts`: the history of rollouts, and with `show` what one of them cost.

Two words that begin with `show` ask for a receipt; a single word is always an endpoint, even one
that is called "show".
"""

from typing import Annotated, Any

import typer

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import AsJson, Config, MaxFailed, StateDir
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import find
from trafficmgr.cli.terminal import show, show_json

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ENDPOINT | show ID]",
        help="Only this endpoint; or what the rollout of this id cost its clients.",
        show_default=False,
    ),
]


def rollouts(
    words: Words = None,
    *,
    max_failed: MaxFailed = None,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Show the rollouts so far, the newest last; with `show ID` the receipt of one."""
    match words or []:
        case ["show", rollout]:
            client = Client(find(state_dir, config))
            receipt = client.get(f"/v1/receipts/{segment(rollout)}")
            _show_receipt(receipt, as_json=as_json)
            judge(receipt, max_failed)
        case _ if max_failed is not None:
            raise CliError("--max-failed judges one rollout: `show ID`.", ExitCode.bad_config)
        case [] | [_] as given:
            client = Client(find(state_dir, config))
            endpoint = given[0] if given else None
            _show_all(client.get("/v1/rollouts", {"endpoint": endpoint}), as_json=as_json)
        case _:
            raise CliError("`rollouts` takes an ENDPOINT, or `show ID`.", ExitCode.bad_config)


def judge(receipt: dict[str, Any], max_failed: int | None) -> None:
    """End with 1 if more requests failed than may.

    Raises:
        CliError: They did.
    """
    failed = int(receipt["failed"])
    if max_failed is not None and failed > max_failed:
        raise CliError(
            f"{receipt['id']}: {failed} requests failed while it went on; at most {max_failed} may."
        )


def _show_receipt(receipt: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(receipt)
        return
    from trafficmgr.cli.show_receipt import receipt as picture  # noqa: PLC0415  brings in rich

    show(picture(receipt))


def _show_all(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    from trafficmgr.cli import show as pictures  # noqa: PLC0415  brings in rich

    show(pictures.rollouts(found))
