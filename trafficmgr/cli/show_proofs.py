"""How gates, hooks and smoke look, in `status` and in a receipt.

As cli/show.py: the API's data in, something that rich can print out.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trafficmgr.cli.table import plain_table
from trafficmgr.cli.words import share, span

Data = dict[str, Any]

MARKS = {"pass": ("✓ pass", "green"), "fail": ("✗ fail", "bold red")}
UNDECIDED = ("? insufficient", "yellow")

HOOK_STYLE = {
    "waiting": "dim",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cut off": "yellow",
    "unknown": "bold yellow",
}

SMOKE_STYLE = {"asking": "cyan", "passed": "green", "failed": "bold red"}


def of_rollout(rollout: Data) -> Iterator[RenderableType]:
    """Yield the picture of all that the rollout under way has to prove; nothing if that is none."""
    if rollout.get("gates"):
        yield _gates(rollout["gates"])
    if rollout.get("hooks"):
        yield _hooks(rollout["hooks"])
    if rollout.get("smoke"):
        yield smoke(rollout["smoke"])


def _gates(every: list[Data]) -> Table:
    """Return a line for each gate of the present stage; the reason has the numbers that count."""
    table = plain_table("GATE", "VERDICT", "WHY")
    for one in every:
        table.add_row(
            str(one.get("gate", "-")),
            mark(one.get("kind")),
            Text(str(one.get("why", ""))),
        )
    return table


def mark(kind: str | None) -> Text:
    """Return a verdict as one sees it from far away."""
    return Text(*MARKS.get(kind or "", UNDECIDED))


def _hooks(every: list[Data]) -> Table:
    """Return a line for each hook of the rollout."""
    table = plain_table("HOOK", "WHEN", "STATE", ">TOOK", "GROUP", "NOTE")
    for one in every:
        table.add_row(
            str(one.get("name", "-")),
            str(one.get("stage", "-")),
            hook_state(one),
            span(one.get("seconds")),
            str(one.get("group") or "-"),
            Text(" ".join(_notes(one)), style="dim"),
        )
    return table


def hook_state(hook: Data) -> Text:
    """Return how far a hook is."""
    state = str(hook.get("phase", "-"))
    return Text(state, style=HOOK_STYLE.get(state, ""))


def _notes(hook: Data) -> Iterator[str]:
    if hook.get("note"):
        yield str(hook["note"])
    if hook.get("is_reversible") is False:
        yield "(reversible: false)"


def smoke(data: Data) -> Text:
    """Return the line of the smoke test."""
    phase = str(data.get("phase", "-"))
    line = Text.assemble("smoke ", (phase, SMOKE_STYLE.get(phase, "")))
    if data.get("leg"):
        line.append(f"  leg {data['leg']} of {data.get('legs', '-')}")
    if data.get("host"):
        line.append(f"  {data['host']}", style="dim")
    if data.get("note"):
        line.append(f"  {data['note']}", style="yellow")
    return line


# -- in a receipt ---------------------------------------------------------------------------------


def of_receipt(receipt: Data) -> Iterator[RenderableType]:
    """Yield what the revision had to prove, and how that went."""
    if receipt.get("smoke"):
        yield smoke(receipt["smoke"])
    if receipt.get("verdicts"):
        yield _verdicts(receipt["verdicts"])
    if receipt.get("is_overruled"):
        yield Text("an operator went on over what had failed", style="yellow")
    for one in receipt.get("hooks", []):
        yield _done(one)
        if one.get("output"):
            yield Text("\n".join(f"  | {line}" for line in str(one["output"]).splitlines()))


def _verdicts(every: list[Data]) -> Table:
    """Return a line for each time that a gate changed its mind."""
    table = plain_table(">AT", "STAGE", ">WEIGHT", "GATE", "VERDICT", "WHY")
    for one in every:
        table.add_row(
            f"+{span(one.get('after_s'))}",
            str(one.get("stage", "-")),
            share(one.get("weight_pct")),
            str(one.get("gate", "-")),
            mark(one.get("kind")),
            Text(str(one.get("why", ""))),
        )
    return table


def _done(hook: Data) -> Text:
    """Return the line of a hook: when, how it ended, how long it took."""
    began = hook.get("began")
    at = f"+{span(began.get('after_s'))}" if began else "not done here"
    line = Text.assemble(
        f"hook {hook.get('name', '-')} ({hook.get('stage', '-')})  {at}  ", hook_state(hook)
    )
    if hook.get("seconds") is not None:
        line.append(f"  took {span(hook['seconds'])}")
    if hook.get("note"):
        line.append(f"  {hook['note']}", style="dim")
    return line
