"""How groups look from inside: `show` and `stats`. Data in, something that rich can print out.

As in cli/show.py: a key that is missing is shown as "-" or not at all, and texts are no markup.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trafficmgr.cli.show import PHASE_STYLE
from trafficmgr.cli.table import INDENT, plain_table
from trafficmgr.cli.words import brief, size

Data = dict[str, Any]

STATE_STYLE = {"Running": "green", "Waiting": "yellow", "Terminated": "red", "Unknown": "magenta"}


# -- show -----------------------------------------------------------------------------------------


def groups(data: Data) -> RenderableType:
    """Return an endpoint with each of its groups."""
    phase = str(data.get("phase", "-"))
    parts: list[RenderableType] = [
        Text.assemble(
            (str(data.get("endpoint", "-")), "bold"),
            "  ",
            (phase, PHASE_STYLE.get(phase, "")),
            f"  {', '.join(data.get('hosts', []))}",
        )
    ]
    parts += [Text(f"  {data['says']}")] if data.get("says") else []
    if data.get("trouble"):
        parts.append(Text(f"TROUBLE: {data['trouble']}", style="bold red"))
    for one in data.get("groups", []):
        parts += [Text(), _group(one)]
    if not data.get("groups"):
        parts.append(Text("There are no groups.", style="dim"))
    return Group(*parts)


def _group(data: Data) -> RenderableType:
    address = f"{data.get('address') or '-'}:{data.get('port', '-')}"
    head = Text.assemble(
        (str(data.get("id", "-")), "bold"),
        f"  {data.get('revision', '-')}  {address}  {data.get('state', '-')}  ",
        _stands(data),
        f"  restart {data.get('restart', '-')}",
    )
    parts: list[RenderableType] = [*_notes(data), _containers(data.get("containers", []))]
    parts += _details(data)
    if data.get("volumes"):
        parts += [Text(f"volume {_volume(one)}", style="dim") for one in data["volumes"]]
    if data.get("events"):
        parts.append(_events(data["events"]))
    return Group(head, *(Padding(part, INDENT, expand=False) for part in parts))


def _stands(data: Data) -> tuple[str, str]:
    """Return whether a group can serve, or that it never will."""
    if data.get("hook"):
        return f"the task of hook {data['hook']}", "cyan"
    return ("ready", "green") if data.get("ready") else ("not ready", "yellow")


def _notes(data: Data) -> Iterator[Text]:
    if data.get("note"):
        yield Text(str(data["note"]), style="yellow")
    if limits := _limits(data.get("limits")):
        yield Text(f"limits of the group: {limits}", style="dim")
    previous = data.get("previous")
    if previous:
        why = f": {previous['why']}" if previous.get("why") else ""
        what = str(previous.get("what") or "gone").lower()
        at = f" at {_clock(previous['at'])}" if previous.get("at") else ""
        yield Text(f"previous {previous.get('group', '-')} {what}{at}{why}", style="yellow")


def _containers(every: list[Data]) -> Table:
    """Return a line for each container."""
    table = plain_table("CONTAINER", "STATE", "REASON", ">EXIT", ">RESTARTS", "SINCE")
    for one in every:
        state = str(one.get("state", "-"))
        code = one.get("exit_code")
        table.add_row(
            str(one.get("name", "-")) + (" (init)" if one.get("is_init") else ""),
            Text(state, style=STATE_STYLE.get(state, "")),
            str(one.get("reason") or "-"),
            "-" if code is None else str(code),
            str(one.get("restarts", "-")),
            _clock(one.get("finished") or one.get("started")),
        )
    return table


def _details(data: Data) -> Iterator[Text]:
    """Yield, for each container, what it is made of, where something is said at all."""
    for one in data.get("containers", []):
        said = [
            f"image {one.get('image', '-')} {brief(one.get('digest') or '') or ''}".rstrip(),
            *(["ports " + ", ".join(map(str, one["ports"]))] if one.get("ports") else []),
            *([limits] if (limits := _limits(one.get("limits"))) else []),
            *([f"user {one['user']}"] if one.get("user") else []),
            *([f"command {' '.join(one['command'])}"] if one.get("command") else []),
            *[_mount(mount) for mount in one.get("mounts", [])],
            *[f"env {key}={value}" for key, value in one.get("env", {}).items()],
            *[f"{kind} {one[kind]}" for kind in ("readiness", "liveness") if one.get(kind)],
            *([f"pre_stop {one['pre_stop']}"] if one.get("pre_stop") else []),
        ]
        yield from (Text(f"{one.get('name', '-')}: {line}", style="dim") for line in said)


def _mount(mount: Data) -> str:
    is_read_only = " read-only" if mount.get("is_read_only") else ""
    return f"mount {mount.get('path', '-')} from {mount.get('volume', '-')}{is_read_only}"


def _limits(limits: Data | None) -> str:
    said = []
    if limits and limits.get("cpu") is not None:
        said.append(f"cpu {limits['cpu']:g}")
    if limits and limits.get("memory_bytes") is not None:
        said.append(f"memory {size(limits['memory_bytes'])}")
    return ", ".join(said)


def _volume(data: Data) -> str:
    head = f"{data.get('name', '-')}: {data.get('kind', '-')}"
    if data.get("size_bytes") is not None:
        return f"{head} of {size(data['size_bytes'])}"
    if data.get("path"):
        return f"{head} {data['path']}"
    files = [f"{file} from secret {name}" for file, name in data.get("files", {}).items()]
    return " ".join([head, ", ".join(files)]).rstrip()


def _events(every: list[Data]) -> Table:
    table = plain_table("FIRST", "LAST", ">COUNT", "EVENT", "WHY")
    for one in every:
        table.add_row(
            _clock(one.get("first")),
            _clock(one.get("last")),
            str(one.get("count", "-")),
            str(one.get("what", "-")),
            Text(str(one.get("why") or "")),
        )
    return table


def _clock(wall: str | None) -> str:
    """Return a time of the API to the second, as `events` shows it."""
    return "-" if not wall else str(wall).replace("T", " ")[:19] + "Z"


# -- stats ----------------------------------------------------------------------------------------


def stats(data: Data) -> RenderableType:
    """Return a line for each container of each group."""
    table = plain_table("GROUP", "REVISION", "CONTAINER", ">CPU", ">MEMORY", ">RECEIVED", ">SENT")
    troubles = []
    for group in data.get("groups", []):
        for one in group.get("containers", []):
            cpu_s = one.get("cpu_s")
            table.add_row(
                str(group.get("id", "-")),
                str(group.get("revision", "-")),
                str(one.get("name", "-")),
                "-" if cpu_s is None else f"{cpu_s:.2f} s",
                size(one.get("memory_bytes")),
                size(one.get("received_bytes")),
                size(one.get("sent_bytes")),
            )
        if group.get("trouble"):
            troubles.append(Text(f"{group.get('id', '-')}: {group['trouble']}", style="yellow"))
    if not table.row_count and not troubles:
        return Text("No group runs.", style="dim")
    return Group(*([table] if table.row_count else []), *troubles)
