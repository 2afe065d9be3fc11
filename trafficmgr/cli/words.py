"""Small things said the same everywhere: durations, counts, revisions, shares."""

from typing import Any

SHORT = 8
"""Characters of a revision or digest that people compare; as core.model.short."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def span(seconds: float | None) -> str:
    """Return a duration in its two largest units: "4.2s", "3m 12s", "2h 5m", "3d 4h"."""
    if seconds is None:
        return "-"
    if seconds < 10:  # noqa: PLR2004  below this a tenth is worth reading
        return f"{max(0.0, seconds):.1f}s"
    left = round(seconds)
    words: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        if left >= size or words:
            words.append((left // size, unit))
            left %= size
    return " ".join(f"{count}{unit}" for count, unit in words[:2] if count)


def number(count: int | None) -> str:
    """Return a count with its thousands apart."""
    return "-" if count is None else f"{count:,}".replace(",", " ")


def size(count: int | None) -> str:
    """Return bytes in the largest binary unit that leaves at least 1."""
    if count is None:
        return "-"
    amount, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while amount >= 1024 and unit != "GiB":  # noqa: PLR2004  the step from one unit to the next
        amount, unit = amount / 1024, next(units)
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def share(per_cent: float | None) -> str:
    """Return a share of traffic; at most one decimal."""
    return "-" if per_cent is None else f"{per_cent:.1f}".removesuffix(".0") + " %"


def bar(per_cent: float, width: int = 12) -> str:
    """Return a bar for a share: empty for exactly 0, full for exactly 100, else in between."""
    filled = round(per_cent * width / 100)
    if 0 < per_cent < 100:  # noqa: PLR2004  per cent
        filled = min(max(filled, 1), width - 1)
    return "█" * filled + "░" * (width - filled)


def brief(value: Any) -> str | None:  # noqa: ANN401  JSON
    """Return a value of an event in a few characters, or None if it can't be said in a few.

    Hashes are shortened; of an object with an id the id is said, of a verdict whose it is and why.
    """
    match value:
        case str(text) | {"id": str(text)}:
            return _shortened(text)
        case bool() | int():
            return str(value).lower()
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".")
        case list():
            words = [brief(one) for one in value]
            return None if None in words else ",".join(word for word in words if word)
        case {"gate": str(gate), "kind": str(kind), "why": str(why)}:
            return f"{gate} {kind} ({why})"
        case _:
            return None


def _shortened(text: str) -> str:
    name = text.removeprefix("sha256:")
    is_hash = len(name) == 64 and set(name) <= set("0123456789abcdef")  # noqa: PLR2004  sha256 in hex
    return name[:SHORT] if is_hash else text
