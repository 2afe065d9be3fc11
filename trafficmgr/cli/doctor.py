"""`trafficmgr doctor`: what this machine and each runtime can do, and what a config lacks here.

It asks no running service, so it works before the first start; `status` says the same of endpoints
that run.
"""

from typing import TYPE_CHECKING, Any

from trafficmgr.cli.options import AsJson, Config
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import find_config
from trafficmgr.cli.terminal import show, show_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trafficmgr.cli.examination import Examination


def doctor(*, config: Config = None, as_json: AsJson = False) -> None:
    """Look whether a config can have all that it needs here; exit 1 if something is missing."""
    from trafficmgr.cli.examination import examined  # noqa: PLC0415  brings in pydantic
    from trafficmgr.config.load import ConfigError, Look, load  # noqa: PLC0415  as above
    from trafficmgr.service.runtime import gaps_of  # noqa: PLC0415  brings in aiohttp

    file = find_config(config)
    try:
        settings = load(file, certificates=Look.needed)
    except ConfigError as error:
        raise CliError(str(error), ExitCode.bad_config) from error
    found = examined(settings, gaps_of)
    if as_json:
        show_json(plain(found))
    else:
        show(picture(found))
    if not found.is_ok:
        raise CliError(f"{file} asks for something that it does not get here; see above.")


def plain(found: "Examination") -> dict[str, Any]:
    """Return what was found as data."""
    from trafficmgr.runtimes.contract import BEHAVIOURS  # noqa: PLC0415  only this verb needs it

    return {
        "is_ok": found.is_ok,
        "checks": [{"what": c.what, "is_ok": c.is_ok, "says": c.says} for c in found.checks],
        "missing": [
            {"endpoint": endpoint, "behaviour": behaviour, "why": why}
            for endpoint, behaviour, why in found.missing
        ],
        "runtimes": {
            kind: {"trouble": engine.trouble, "gaps": dict(engine.gaps)}
            for kind, engine in found.engines.items()
        },
        "behaviours": BEHAVIOURS,
    }


def picture(found: "Examination") -> "RenderableType":
    """Return what was found as tables."""
    from rich.console import Group  # noqa: PLC0415  slow; `--json` does not need it
    from rich.text import Text  # noqa: PLC0415  as above

    parts: list[RenderableType] = [_checks(found), Text(), _behaviours(found)]
    parts += [
        Text(f"{kind} is not usable here: {engine.trouble}", style="dim")
        for kind, engine in found.engines.items()
        if engine.trouble
    ]
    if found.missing:
        parts += [Text(), Text("Asked for by the config, and not to be had:", style="bold")]
        parts += [
            Text(f"  {endpoint}: {behaviour}: {why}", style="yellow")
            for endpoint, behaviour, why in found.missing
        ]
    return Group(*parts)


def _checks(found: "Examination") -> "RenderableType":
    from rich.text import Text  # noqa: PLC0415  slow; `--json` does not need it

    from trafficmgr.cli.table import plain_table  # noqa: PLC0415  brings in rich

    table = plain_table("", "", "")
    table.show_header = False
    for check in found.checks:
        mark = Text("ok", style="green") if check.is_ok else Text("NO", style="bold red")
        table.add_row(mark, check.what, Text(check.says, style="dim" if check.is_ok else ""))
    return table


def _behaviours(found: "Examination") -> "RenderableType":
    """Return a row for each behaviour: ok, or why not, for each runtime."""
    from rich.text import Text  # noqa: PLC0415  slow; `--json` does not need it

    from trafficmgr.cli.table import plain_table  # noqa: PLC0415  brings in rich
    from trafficmgr.runtimes.contract import BEHAVIOURS  # noqa: PLC0415  only this verb needs it

    table = plain_table("CAN IT", *(kind.upper() for kind in found.engines))
    for behaviour in BEHAVIOURS:
        cells = []
        for engine in found.engines.values():
            why_not = "not usable here" if engine.trouble else engine.gaps.get(behaviour, "")
            cells.append(Text(why_not, style="yellow") if why_not else Text("ok", style="green"))
        table.add_row(behaviour, *cells)
    return table
