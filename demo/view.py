"""What one sees while the demo runs: the story line by line, and below it how things stand now.

On a terminal a picture is renewed in place. Anywhere else, and with --json, a line every two
seconds says the same.
"""

import asyncio
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.house import EndpointSeen, House
from demo.judge import KIND_OF
from demo.ledger import Ledger, now
from demo.versions import FLAWED

LATELY_S = 2.0
"""What "observed" looks back on."""

RENEW_S = 0.5
LINE_EVERY_S = 2.0


class View:
    """Tells the demo to whoever looks. `ledger` and `house` come when they are there."""

    def __init__(self, *, plain: bool) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._is_live = self._console.is_terminal and not plain
        self._began_at = now()

    def say(self, text: str) -> None:
        """Tell what happened, with the seconds since the start."""
        line = Text(f"{now() - self._began_at:6.1f} s  ", style="dim")
        self._console.print(line.append(text, style="bold"))

    def show(self, text: str) -> None:
        """Print a text as it is."""
        self._console.print(Text(text))

    async def watch(self, house: House, ledger: Ledger) -> None:
        """Show how things stand until cancelled."""
        if not self._is_live:
            while True:
                await asyncio.sleep(LINE_EVERY_S)
                self._console.print(
                    Text(f"{now() - self._began_at:6.1f} s  {summary(house, ledger)}")
                )
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(panel(house, ledger), refresh=True)
                await asyncio.sleep(RENEW_S)


def summary(house: House, ledger: Ledger) -> str:
    """Return how things stand, in one line."""
    parts = [_brief(one, _observed(one, ledger)) for one in house.now.endpoints.values()]
    if not house.is_answering:
        parts.append("(no controller)")
    parts.append(", ".join((f"{_rate(ledger):.0f}/s", *_troubles(ledger))))
    return " | ".join(parts)


def _troubles(ledger: Ledger) -> tuple[str, ...]:
    own = (f"errors of {FLAWED} {ledger.errors}",) if ledger.errors else ()
    return (f"failed {len(ledger.failures)}", f"cut {len(ledger.cuts)}", *own)


def _brief(endpoint: EndpointSeen, observed: Mapping[str, float]) -> str:
    shares = [
        f"{version} {weight}% (seen {observed.get(version, 0.0):.0f}%)"
        for version, weight in endpoint.weights.items()
        if weight or observed.get(version)
    ]
    return f"{endpoint.name} {endpoint.phase} {' '.join(shares)}"


def panel(house: House, ledger: Ledger) -> Table:
    """Return how things stand, as a picture."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("endpoint", "phase", "version", "", "weight", "observed", "groups"):
        table.add_column(title, justify="right" if title in {"weight", "observed"} else "left")
    for endpoint in house.now.endpoints.values():
        _add_rows(table, endpoint, _observed(endpoint, ledger))
    failed, *others = _troubles(ledger)
    table.add_row(
        "clients",
        f"{_rate(ledger):.0f}/s",
        Text(failed, style="bold red" if ledger.failures else "green"),
        ", ".join(others),
        "",
        "",
        "" if house.is_answering else Text("no controller; workers serve on", style="yellow"),
    )
    return table


def _add_rows(table: Table, endpoint: EndpointSeen, observed: Mapping[str, float]) -> None:
    versions = dict.fromkeys([*endpoint.weights, *(g.version for g in endpoint.groups)])
    for index, version in enumerate(versions):
        weight = endpoint.weights.get(version, 0)
        groups = [f"{g.id} {g.state}" for g in endpoint.groups if g.version == version]
        table.add_row(
            "" if index else endpoint.name,
            "" if index else endpoint.phase,
            version,
            Text("█" * (weight // 5) + "·" * (20 - weight // 5), style="cyan"),
            f"{weight} %",
            f"{observed.get(version, 0.0):.0f} %",
            ", ".join(groups),
        )


def _observed(endpoint: EndpointSeen, ledger: Ledger) -> dict[str, float]:
    """Return the share of each version that the endpoint's users saw lately, in per cent."""
    counts = ledger.versions_lately(kind=KIND_OF.get(endpoint.name, ""), since=now() - LATELY_S)
    return {version: 100 * count / counts.total() for version, count in counts.items()}


def _rate(ledger: Ledger) -> float:
    since = now() - LATELY_S
    return (
        sum(ledger.versions_lately(kind=kind, since=since).total() for kind in KIND_OF.values())
        / LATELY_S
    )
