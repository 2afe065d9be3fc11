"""The two clocks of this room."""

import time
from datetime import UTC, datetime


def boottime() -> float:
    """Return seconds on CLOCK_BOOTTIME, which all our processes share."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall() -> float:
    """Return seconds since the epoch, only to be compared with dates that others send."""
    return datetime.now(UTC).timestamp()
