"""Durations, sizes and shares, as people write them: `10s`, `1m30s`, `256MiB`, `1%`.

A bare number is refused, because its unit would be a guess (nginx reads seconds, HAProxy
milliseconds, Argo CD Image Updater once read milliseconds where everybody meant seconds). Only 0
needs no unit. A share may be per cent or a number below 1; a bare 1 could be either, and is
refused. Every function raises `UnfitError`.
"""

import re
from decimal import Decimal

from trafficmgr.config.problems import UnfitError

SECONDS = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
"""Units of time, the larger first, as they must be written."""

BYTES = {
    "B": 1,
    **{f"{prefix}B": 1000**n for n, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**n for n, prefix in enumerate("KMGT", 1)},
}

MAX_TTL_S = 2**31 - 1
"""RFC 2181 section 8: a TTL is a number of 31 bits."""

MAX_ALPHA = Decimal("0.5")
"""More than this would condemn a good release rather than spare it."""

_PART = r"(\d{1,12}(?:\.\d{1,6})?)"
DURATION_PATTERN = r"^(0|(\d+(\.\d+)?(d|h|m(?!s)|s|ms))+)$"
SIZE_PATTERN = r"^\d+(\.\d+)? ?([KMGT]i?)?B$"
SHARE_PATTERN = r"^\d{1,3}(\.\d{1,9})? ?%?$"
_DURATION_PART = re.compile(_PART + r"(ms|[dhms])")
_SIZE = re.compile(_PART + r"\s*([A-Za-z]*)", re.ASCII)
_SHARE = re.compile(r"(\d{1,12}(?:\.\d{1,17})?)\s*(%?)", re.ASCII)


def duration(value: object) -> float:
    """Return the seconds of a duration such as `500ms`, `10s` or `1h30m`."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise UnfitError("is not a duration", "write a number with a unit, such as 10s or 5m")
    text = str(value).strip()
    if text.startswith("-"):
        raise UnfitError("is negative", f"a duration counts forward: write {text[1:] or '10s'}")
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _zero(text)
    return _sum_of_parts(text)


def positive_duration(value: object) -> float:
    """Return the seconds of a duration that is more than nothing."""
    seconds = duration(value)
    if seconds == 0:
        raise UnfitError("is zero, which would never pause", "write at least 1ms")
    return seconds


def interval(value: object) -> float:
    """Return the seconds of a duration of at least one."""
    seconds = duration(value)
    if seconds < 1:
        raise UnfitError("is shorter than a second", "write at least 1s")
    return seconds


def share(value: object) -> float:
    """Return the part of 1 that `1%`, `0.5%` or `0.01` is; neither nothing nor all."""
    return float(_share(value))


def alpha(value: object) -> float:
    """Return a bound on false alarms: a share of at most a half."""
    part = _share(value)
    if part > MAX_ALPHA:
        hint = "write 1% for at most one good release in a hundred"
        raise UnfitError("would condemn more than half of all good releases", hint)
    return float(part)


def percent(value: object) -> float:
    """Return the part of 1 that whole per cent are, 0% and 100% among them."""
    part = _part(value)
    if part * 100 != int(part * 100):
        raise UnfitError("is not a whole number of per cent", f"write {round(part * 100)}%")
    if part > 1:
        raise UnfitError("is more than all there is", "write 100% or less")
    return float(part)


def ttl(value: object) -> int:
    """Return a TTL in whole seconds, 0 to 2147483647 (RFC 2181 section 8)."""
    seconds = duration(value)
    if seconds != int(seconds):
        raise UnfitError(
            "is not a whole number of seconds, which DNS needs", f"write {int(seconds) + 1}s"
        )
    if seconds > MAX_TTL_S:
        raise UnfitError("is longer than DNS can say", f"write 0s to {MAX_TTL_S}s")
    return int(seconds)


def size(value: object) -> int:
    """Return the bytes of a size such as `256MiB` or `64MB`; at least one."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UnfitError("is not a size", "write a number with a unit, such as 256MiB")
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise UnfitError("is not a size", "write a number with a unit, such as 256MiB")
    number, unit = match.groups()
    if unit not in BYTES:
        raise UnfitError(*_wrong_size_unit(number, unit))
    amount = int(Decimal(number) * BYTES[unit])
    if amount == 0:
        raise UnfitError("is nothing at all", "write at least 1B; leave the key out for no limit")
    return amount


def shown(seconds: float) -> str:
    """Return a duration as a person would write it: 90 -> "1m30s"."""
    left, parts = Decimal(str(seconds)), []
    for unit, worth in SECONDS.items():
        count = int(left // worth)
        if count:
            parts.append(f"{count}{unit}")
            left -= count * worth
    return "".join(parts) or "0s"


def shown_size(size_bytes: int) -> str:
    """Return a size as a person would write it: 268435456 -> "256MiB"."""
    fitting = [(worth, unit) for unit, worth in BYTES.items() if size_bytes % worth == 0]
    worth, unit = max(fitting)
    return f"{size_bytes // worth}{unit}"


def shown_share(part: float) -> str:
    """Return a share as a person would write it: 0.005 -> "0.5%"."""
    return f"{(Decimal(str(part)) * 100).normalize():f}%"


def _share(value: object) -> Decimal:
    number, has_unit = _written_share(value)
    part = number / 100 if has_unit else number
    if part == 0:
        raise UnfitError("is zero", "write more than 0, such as 1%")
    if part >= 1:
        raise UnfitError("is all there is, or more", _below_all(number, has_unit=has_unit))
    return part


def _part(value: object) -> Decimal:
    """Return any part of 1; a bare number of 1 or more may be meant as per cent, so it needs %."""
    number, has_unit = _written_share(value)
    if not has_unit and number >= 1:
        raise UnfitError("has no unit", f"write {number}% for per cent")
    return number / 100 if has_unit else number


def _written_share(value: object) -> tuple[Decimal, bool]:
    """Return the number of a share, and whether it is per cent."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = f"{Decimal(str(value)):f}" if is_number else value
    match = _SHARE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise UnfitError("is not a share", "write per cent, such as 1%, or a number such as 0.01")
    return Decimal(match[1]), bool(match[2])


def _below_all(number: Decimal, *, has_unit: bool) -> str:
    """Return what to write in place of too large a share: 5 was meant as per cent."""
    if not has_unit and number < 100:  # noqa: PLR2004  per cent
        return f"write {number}% for per cent"
    return "write less than 100%"


def _zero(text: str) -> float:
    """Return 0.0 for a number without a unit that needs none, or say which units there are."""
    if Decimal(text) == 0:
        return 0.0
    raise UnfitError("has no unit", f"write {text}s for seconds or {text}m for minutes")


def _sum_of_parts(text: str) -> float:
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UnfitError("is not a duration", "write 500ms, 10s, 5m, 1h or 1m30s")
    ranks = [list(SECONDS).index(unit) for _, unit in parts]
    if ranks != sorted(set(ranks)):
        raise UnfitError("has its units out of order", "write the larger first, such as 1m30s")
    return float(sum((Decimal(number) * SECONDS[unit] for number, unit in parts), Decimal(0)))


def _wrong_size_unit(number: str, unit: str) -> tuple[str, str]:
    if not unit:
        return "has no unit", f"write {number}MiB for mebibytes or {number}B for bytes"
    prefix = unit[:1].upper()
    fitting = f"{prefix}iB" if f"{prefix}iB" in BYTES else "MiB"
    return f'has an unknown unit "{unit}"', f"write {number}{fitting}"
