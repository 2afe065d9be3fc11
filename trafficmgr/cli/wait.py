"""`trafficmgr wait`: until it is decided whether the newest revision serves; for pipelines.

A rollout that was paused by itself ends the waiting, too: until somebody answers its question it is
decided by nobody, and a pipeline that waits for its time-out hides that.

It looks at what the service knows. A tag that was pushed a moment ago is news to the service with
its next look at the registry (`update.every`) and not before.
"""

import time
from typing import Annotated, Any

import typer

from trafficmgr.cli.client import Client
from trafficmgr.cli.options import AsJson, Config, Endpoint, MaxFailed, StateDir
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import find
from trafficmgr.cli.rollouts import judge
from trafficmgr.cli.status import only
from trafficmgr.cli.terminal import show_json
from trafficmgr.cli.words import span

LOOK_EVERY_S = 0.5

Timeout = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="Give up after this long (exit code 4).")
]


def wait(
    endpoint: Endpoint,
    *,
    timeout: Timeout = "10m",
    max_failed: MaxFailed = None,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Wait until no rollout is under way: 0 if the newest revision serves, 1 if it failed.

    Ends with 5 if the rollout was paused by itself (a gate without a
    verdict, a hook whose end nobody knows, a failure after a hook that
    can't be undone), with 4 when the time is over.
    """
    timeout_s = _seconds(timeout)
    client = Client(find(state_dir, config))
    state = _decided(client, endpoint, timeout_s)
    kept = client.get("/v1/receipts", {"endpoint": endpoint, "limit": 1})
    receipt = kept[-1] if kept else None
    question = asks(state)
    if as_json:
        show_json({"endpoint": state, "receipt": receipt})
    elif not question:
        print(_says(state, receipt))
    if question:
        raise CliError(
            f"{endpoint} is not decided: its rollout was paused by itself. {question} Each is typed"
            f" like `trafficmgr abort {endpoint}`.",
            ExitCode.asks,
        )
    for one in state.get("quarantined", []):
        if one["revision"] == state["newest"]:
            raise CliError(f"Revision {one['revision']} of {endpoint} failed: {one['reason']}.")
    if receipt is not None:
        judge(receipt, max_failed)


def _decided(client: Client, endpoint: str, timeout_s: float) -> dict[str, Any]:
    """Return the endpoint's status once the newest revision serves, was given up, or asks."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        state: dict[str, Any] = only(client.get("/v1/status"), endpoint)["endpoints"][0]
        if state.get("phase") == "removed":
            raise CliError(f"{endpoint} was removed; there is nothing to wait for.")
        if is_decided(state) or asks(state):
            return state
        if time.monotonic() >= give_up_at:
            raise CliError(
                f"{endpoint} is not decided after {span(timeout_s)}: {state.get('says', '')}",
                ExitCode.timed_out,
            )
        time.sleep(LOOK_EVERY_S)


def is_decided(state: dict[str, Any]) -> bool:
    """Whether the newest revision serves alone or was given up, and nothing is under way."""
    given_up = [one["revision"] for one in state.get("quarantined", [])]
    is_known = state.get("newest") is not None
    return is_known and not state.get("rollout") and state["newest"] in {state["stable"], *given_up}


def asks(state: dict[str, Any]) -> str:
    """Return the question of a rollout that was paused by itself; "" if there is none."""
    return str((state.get("rollout") or {}).get("question") or "")


def _says(state: dict[str, Any], receipt: dict[str, Any] | None) -> str:
    sentence = str(state.get("says", ""))
    if receipt is None or receipt["seconds"] is None:
        return sentence
    took = f"{receipt['id']} {receipt['outcome']} in {span(receipt['seconds'])}"
    return f"{sentence} {took}; {receipt['failed']} requests failed meanwhile."


def _seconds(text: str) -> float:
    from trafficmgr.config.problems import UnfitError  # noqa: PLC0415  only this verb needs them
    from trafficmgr.config.units import positive_duration  # noqa: PLC0415  as above

    try:
        return positive_duration(text)
    except UnfitError as error:
        why = f"--timeout {text} {error.predicate}; {error.hint}."
        raise CliError(why, ExitCode.bad_config) from error
