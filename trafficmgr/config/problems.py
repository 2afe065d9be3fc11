"""Problems of a configuration file, as people read them: all together, each with its place.

A `Problem` knows where it is, what is wrong and what to write instead; `ConfigError` carries all
of a file's problems in the order of the file. The shape of the text is STYLE.md's:

    config/shop.yaml:14:5: unknown key "replica" in endpoint "shop"
      14 |     replica: 3
         |     ^^^^^^^ did you mean "replicas"?
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trafficmgr.core.errors import TrafficmgrError


class UnfitError(ValueError):
    """A single value is not what its key needs. `load` turns it into a `Problem`.

    Args:
        predicate: Says of the value what is wrong ("has no unit"); the key goes before it.
        hint: What to write instead. "{written}" stands for what the file has.
        at: Where below the value, when only a part of it is wrong.
    """

    def __init__(self, predicate: str, hint: str = "", at: tuple[str | int, ...] = ()) -> None:
        super().__init__(predicate)
        self.predicate = predicate
        self.hint = hint
        self.at = at


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line. `line` and `column` count from 1; line 0 is the file as a whole."""

    line: int = 0
    column: int = 0
    width: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file, and `hint`, what to do about it ("" is nothing).

    `source` is the line it is on, as it stands in the file.
    """

    path: Path
    span: Span
    text: str
    hint: str = ""
    source: str = ""

    def __str__(self) -> str:
        text, hint = _printable(self.text), _printable(self.hint)
        if not self.span.line:
            return f"{self.path}: {text}" + (f"; {hint}" if hint else "")
        number, source = str(self.span.line), _printable(self.source)
        before = source[: self.span.column - 1]
        # A tab is as wide as the terminal says, so the carets stand behind the same tabs.
        margin = "".join("\t" if c == "\t" else " " for c in before).ljust(self.span.column - 1)
        carets = f"{margin}{'^' * max(1, self.span.width)} {hint}".rstrip()
        return (
            f"{self.path}:{self.span.line}:{self.span.column}: {text}\n"
            f"  {number} | {source}\n"
            f"  {' ' * len(number)} | {carets}"
        )


class ConfigError(TrafficmgrError):
    """The file can't be used. `problems` has everything that is wrong with it, from the top."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        in_order = sorted(set(problems), key=lambda p: (p.span.line, p.span.column, p.text))
        self.problems = tuple(in_order)
        super().__init__("\n".join(map(str, self.problems)))


def _printable(text: str) -> str:
    """Return text that can't move the cursor of the terminal that shows it."""
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
