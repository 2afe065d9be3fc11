"""How answers look: the API's data in, something that rich can print out. Nothing is printed here.

Data may come from a service of another version, so a key that is missing is shown as "-" or not at
all. All texts go in as `Text`: a reason with brackets in it is no markup.
"""

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trafficmgr.cli import show_proofs
from trafficmgr.cli.table import INDENT, plain_table
from trafficmgr.cli.words import SHORT, bar, brief, number, share, span

Data = dict[str, Any]

PHASE_STYLE = {
    "serving": "green",
    "starting": "cyan",
    "progressing": "cyan",
    "promoting": "cyan",
    "paused": "yellow",
    "completed": "green",
    "aborting": "yellow",
    "aborted": "red",
    "superseded": "magenta",
    "removed": "dim",
}

ROLES = ("stable", "candidate", "previous")

COUNTS = (
    ("REQUESTS", "requests", ""),
    ("DNS", "dns_answers", ""),
    ("SPILLED", "spilled", "yellow"),
    ("5XX", "errors_5xx", "yellow"),
    ("FAILED", "failures", "red"),
)
ALWAYS_COUNTED = frozenset({"requests", "failures"})

QUIET_KEYS = frozenset({"at", "event", "endpoint"})
"""Of an event: said elsewhere on its line."""


# -- status ---------------------------------------------------------------------------------------


def status(data: Data) -> RenderableType:
    """Return the picture of the whole service."""
    parts: list[RenderableType] = [service(data.get("service", {}))]
    for one in data.get("endpoints", []):
        parts += [Text(), endpoint(one)]
    if len(parts) == 1:
        parts.append(Text("There are no endpoints.", style="dim"))
    return Group(*parts)


def service(data: Data) -> RenderableType:
    """Return two lines on the service itself, and one on what keeps it from deciding."""
    first = Text.assemble(
        (f"trafficmgr {data.get('version', '')}".rstrip(), "bold"),
        f"  pid {data.get('pid', '-')}  up {span(data.get('since_s'))}",
        f"  state {data.get('state_dir', '-')}",
        f"  config {data['config']}" if data.get("config") else "",
    )
    if data.get("is_stopping"):
        first.append("  stopping", style="yellow")
    slots = data.get("slots", [])
    absent = [str(slot.get("slot")) for slot in slots if not slot.get("is_present")]
    second = Text(f"workers {len(slots) - len(absent)} of {len(slots)}")
    if absent:
        second.append(f"  slot {', '.join(absent)} is absent: nothing retires", style="yellow")
    for kind, addresses in data.get("listen", {}).items():
        second.append(f"  {kind} {', '.join(addresses)}")
    trouble = [Text(f"TROUBLE: {data['trouble']}", style="bold red")] if data.get("trouble") else []
    return Group(first, second, *trouble)


def endpoint(data: Data) -> RenderableType:
    """Return the picture of one endpoint, from what it does now down to its groups."""
    parts: list[RenderableType] = []
    if data.get("says"):
        parts.append(Text(data["says"]))
    if data.get("alarm"):
        parts.append(Text(f"ALARM: {data['alarm']}", style="bold red"))
    rollout = data.get("rollout") or {}
    if rollout.get("question"):
        parts.append(Text(f"ASKS: {rollout['question']}", style="bold yellow"))
    parts += [Text(f"note: {remark}", style="dim") for remark in data.get("remarks", [])]
    if rollout:
        parts += [_rollout_now(rollout), *show_proofs.of_rollout(rollout)]
    if data.get("weights"):
        parts.append(weights(data))
    if data.get("groups"):
        parts.append(groups(data["groups"]))
    parts += [_watched(one) for one in data.get("registry", [])]
    parts += [_quarantined(one) for one in data.get("quarantined", [])]
    return Group(_heading(data), *(Padding(part, INDENT, expand=False) for part in parts))


def _heading(data: Data) -> Text:
    phase = str(data.get("phase", "-"))
    return Text.assemble(
        (str(data.get("name", "-")), "bold"),
        "  ",
        (phase, PHASE_STYLE.get(phase, "")),
        f"  {', '.join(data.get('hosts', []))}  publish {data.get('publish', '-')}",
        f"  table {data.get('generation', '-')}",
    )


def _rollout_now(rollout: Data) -> Text:
    what = "rollback" if rollout.get("is_rollback") else "rollout"
    line = Text(f"{what} {_short(rollout.get('from'))} → {_short(rollout.get('to'))}", style="cyan")
    if rollout.get("step"):  # 0 is before the first one
        line.append(f"  step {rollout['step']} of {rollout.get('steps', '-')}")
    if rollout.get("weight_pct") is not None:
        line.append(f" at {share(rollout['weight_pct'])}")
    hold_left_s, patience_left_s = rollout.get("hold_left_s"), rollout.get("patience_left_s")
    if hold_left_s == 0 and patience_left_s is not None:
        line.append(f"  waits {span(patience_left_s)} at most for its gates")
    elif hold_left_s is not None:
        line.append(f"  hold {span(hold_left_s)} left")
    if rollout.get("deadline_left_s") is not None:
        line.append(f"  deadline in {span(rollout['deadline_left_s'])}")
    if rollout.get("reason"):
        line.append(f"  {rollout['reason']}", style="yellow")
    return line


def weights(data: Data) -> Table:
    """Return a line for each revision: its share as configured and as observed.

    What was counted is shown as far as it says something: DNS answers where there are any, and
    the application's own errors (5XX) beside those of the proxy (FAILED).
    """
    every = data["weights"]
    counts = [
        (header, key, style)
        for header, key, style in COUNTS
        if key in ALWAYS_COUNTED or any(one.get(key) for one in every)
    ]
    headers = [f">{header}" for header, _, _ in counts]
    table = plain_table("REVISION", "ROLE", "WEIGHT", ">", ">OBSERVED", ">READY", *headers)
    for one in every:
        role = _role(data, one.get("revision"))
        weight = one.get("weight_pct") or 0
        table.add_row(
            _short(one.get("revision")),
            role,
            Text(bar(weight), style="cyan" if role == "candidate" else "green"),
            share(weight),
            share(one.get("observed_pct")),
            f"{one.get('ready', '-')}/{one.get('replicas', '-')}",
            *(_count(one.get(key), style) for _, key, style in counts),
        )
    return table


def _count(count: int | None, style: str) -> Text:
    """Return a count; one of something bad stands out unless it is 0."""
    return Text(number(count), style=style if count else "")


def _role(data: Data, revision: str | None) -> str:
    """Return what a revision is to its endpoint; ids may be whole or short."""
    names = [role for role in ROLES if data.get(role) and _short(data[role]) == _short(revision)]
    return names[0] if names else "retiring"


def groups(every: list[Data]) -> Table:
    """Return a line for each group, and below it one for each thing that it waits for."""
    table = plain_table("GROUP", "REVISION", "ADDRESS", "STATE", "READY", "NOTE")
    for one in every:
        task = [f"the task of hook {one['hook']}, no replica"] if one.get("hook") else []
        notes = [*task, *one.get("waits", []), *filter(None, [one.get("note")])]
        table.add_row(
            str(one.get("id", "-")),
            _short(one.get("revision")),
            str(one.get("address") or "-"),
            str(one.get("state", "-")),
            _is_ready(one),
            Text("\n".join(notes), style="dim"),
        )
    return table


def _is_ready(group: Data) -> Text:
    """Return whether a group can serve; a hook's task never does."""
    if group.get("hook"):
        return Text("-")
    is_ready = bool(group.get("ready"))
    return Text("yes" if is_ready else "no", style="green" if is_ready else "yellow")


def _watched(image: Data) -> Text:
    name = f"image {image.get('image', '-')}"
    if image.get("trouble"):
        since = span(image.get("trouble_for_s"))
        return Text(f"{name}: {image['trouble']} (for {since})", style="yellow")
    digest = brief(image.get("digest") or "") or "not seen yet"
    checked = image.get("checked_s_ago")
    ago = "" if checked is None else f", checked {span(checked)} ago"
    return Text(f"{name} {digest}{ago}", style="dim")


def _quarantined(revision: Data) -> Text:
    text = f"quarantined {_short(revision.get('revision'))}: {revision.get('reason', '')}"
    return Text(text, style="red")


# -- history --------------------------------------------------------------------------------------


def event(data: Data) -> Text:
    """Return the line of one event: place, time, endpoint, kind, then what is worth saying."""
    wall = str(data.get("wall", "")).replace("T", " ")[:19]
    line = Text.assemble(
        (f"{data.get('seq', '-'):>6} {wall}Z ", "dim"),
        f"{data.get('endpoint') or '(all)':<12} ",
        (str(data.get("kind", "-")), "bold"),
    )
    for key, value in data.get("event", {}).items():
        text = None if key in QUIET_KEYS else brief(value)
        if text:
            line.append(f" {key}=", style="dim").append(text)
    return line


def rollouts(every: list[Data]) -> RenderableType:
    """Return each rollout with its marks."""
    if not every:
        return Text("There were no rollouts yet.", style="dim")
    return Group(*(_rollout(one) for one in every))


def _rollout(data: Data) -> RenderableType:
    outcome = str(data.get("outcome") or "under way")
    head = Text.assemble(
        (f"{data.get('endpoint', '-')} {data.get('id', '')}".rstrip(), "bold"),
        f"  {_short(data.get('from'))} → {_short(data.get('to'))}  ",
        (outcome, PHASE_STYLE.get(outcome, "cyan")),
        f"  took {span(data.get('seconds'))}, started {span(data.get('started_s_ago'))} ago",
    )
    if data.get("reason"):
        head.append(f"  {data['reason']}", style="yellow")
    if data.get("question"):
        head.append(f"  ASKS: {data['question']}", style="bold yellow")
    marks = plain_table(">", "", ">")
    marks.show_header = False
    for mark in data.get("marks", []):
        after = f"+{span(mark.get('after_s'))}"
        marks.add_row(after, str(mark.get("what", "-")), share(mark.get("weight_pct")))
    return Group(head, Padding(marks, INDENT, expand=False)) if marks.row_count else head


# -- helpers --------------------------------------------------------------------------------------


def _short(revision: str | None) -> str:
    return str(revision or "-")[:SHORT]
