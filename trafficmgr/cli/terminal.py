"""Printing: colours on a terminal only, JSON as one document, long lines left whole in a pipe."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_COLUMNS = 160
"""Width when nobody looks: tables stay tables, and rows are not folded for grep."""


def console() -> "Console":
    """Return a console for the present stdout. Texts are data: no markup in them is obeyed."""
    from rich.console import Console  # noqa: PLC0415  slow; `--json` does not need it

    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(markup=False, emoji=False, highlight=False, width=width)


def show(renderable: "RenderableType") -> None:
    """Print something that cli/show.py made."""
    console().print(renderable)


def show_json(data: Any) -> None:  # noqa: ANN401  JSON
    """Print one JSON document."""
    print(json.dumps(data, indent=2))


def show_answer(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what the service said to an order: its sentence, or all of it as JSON."""
    if as_json:
        show_json(answer)
    else:
        print(answer.get("says", ""))
