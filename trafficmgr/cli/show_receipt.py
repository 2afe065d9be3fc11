"""How a receipt looks: what clients felt first, then how the rollout went, then the proofs.

As cli/show.py: the API's data in, something that rich can print out.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trafficmgr.cli import show_proofs
from trafficmgr.cli.show import PHASE_STYLE
from trafficmgr.cli.table import INDENT, plain_table
from trafficmgr.cli.words import number, share, span

Data = dict[str, Any]

ROLES = {"from": "old", "to": "new", "other": "other", "none": "no target"}


def receipt(data: Data) -> RenderableType:
    """Return the picture of one receipt."""
    parts: list[RenderableType] = [_failures(data), _revisions(data), _phases(data)]
    if data.get("shares"):
        parts.append(_shares(data))
    parts += show_proofs.of_receipt(data)
    if data.get("groups"):
        parts.append(_groups(data))
    parts += [Text(f"not measured: {gap}", style="yellow") for gap in data.get("gaps", [])]
    parts += [Text(f"not final: waits for {what}", style="cyan") for what in data.get("waits", [])]
    return Group(_head(data), *(Padding(part, INDENT, expand=False) for part in parts))


def _head(data: Data) -> Text:
    outcome = str(data.get("outcome", "-"))
    took = f"took {span(data.get('seconds'))}" if data.get("is_over") else "under way"
    line = Text.assemble(
        (f"{data.get('endpoint', '-')} {data.get('id', '-')}", "bold"),
        f"  {data.get('from') or '-'} → {data.get('to') or '-'}  ",
        (outcome, PHASE_STYLE.get(outcome, "cyan")),
        f"  {took}, began {str(data.get('started', '-'))[:19].replace('T', ' ')}Z",
    )
    if data.get("reason"):
        line.append(f"  {data['reason']}", style="yellow")
    return line


def _failures(data: Data) -> RenderableType:
    """Return the sentence that a rollout is judged by, and each cause."""
    failed = data.get("failed", 0)
    noun = "request" if failed == 1 else "requests"
    head = Text(f"{number(failed)} {noun} failed", style="red" if failed else "green")
    if data.get("seen"):
        head.append(f"\n{data['seen'].get('says', '')}", style="bold")
    causes = plain_table("", "", ">")
    causes.show_header = False
    for one in data.get("failures", []):
        whose = f"{one.get('by', '-')}: {one.get('cause', '-')}"
        causes.add_row(whose, _revision(one), number(one.get("count")))
    return Group(head, causes) if causes.row_count else head


def _revisions(data: Data) -> Table:
    picture = plain_table("REVISION", "", ">REQUESTS", ">DNS", ">SPILLED", ">PREVIEW")
    for one in data.get("revisions", []):
        picture.add_row(
            str(one.get("revision") or "-"),
            ROLES.get(one.get("role", ""), "-"),
            number(one.get("requests")),
            number(one.get("dns_answers")),
            number(one.get("spilled")),
            number(one.get("preview")),
        )
    return picture


def _phases(data: Data) -> Table:
    picture = plain_table(">AT", "PHASE", ">WEIGHT", ">LASTED")
    for one in data.get("phases", []):
        weight = share(one["weight_pct"]) if one.get("weight_pct") else ""
        lasted = span(one.get("seconds"))
        picture.add_row(f"+{span(one.get('after_s'))}", str(one.get("what")), weight, lasted)
    return picture


def _shares(data: Data) -> Table:
    picture = plain_table(">AT", ">LASTED", ">CONFIGURED", ">OBSERVED", ">CLIENTS", ">SPILLED")
    for one in data["shares"]:
        picture.add_row(
            f"+{span(one.get('after_s'))}",
            span(one.get("seconds")),
            share(one.get("weight_pct")),
            share(one.get("observed_pct")),
            number(one.get("clients")),
            number(one.get("spilled")),
        )
    return picture


def _groups(data: Data) -> Table:
    """Return when each group was reached last and when it was gone, with what is odd about it."""
    picture = plain_table(
        "GROUP", "REVISION", "", "ADDRESS", ">WITHDRAWN", ">LAST ANSWERED", ">STOPPED", "NOTE"
    )
    for one in data["groups"]:
        picture.add_row(
            str(one.get("id", "-")),
            str(one.get("revision") or "-"),
            ROLES.get(one.get("role", ""), "-"),
            str(one.get("address") or "-"),
            *_moments(one),
            Text(str(one.get("says", "")), style="yellow"),
        )
    return picture


def _moments(group: Data) -> Iterator[str]:
    for key, never in (("withdrawn", "never served"), ("last_answered", "never"), ("stopped", "-")):
        moment = group.get(key)
        yield f"+{span(moment.get('after_s'))}" if moment else never


def _revision(one: Data) -> str:
    role = ROLES.get(one.get("role", ""), "")
    return f"{one['revision']} ({role})" if one.get("revision") else role
