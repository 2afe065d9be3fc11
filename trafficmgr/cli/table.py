"""The one kind of table that answers are shown in."""

from typing import Any

from rich.table import Table

INDENT = (0, 0, 0, 2)
"""Padding of what belongs to the line above it."""


def plain_table(*headers: str) -> Table:
    """Return an empty table without lines; a header that begins with ">" is aligned right."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for header in headers:
        justify: Any = "right" if header.startswith(">") else "left"
        table.add_column(header.removeprefix(">"), justify=justify)
    return table
