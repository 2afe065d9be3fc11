"""How long to leave a registry or an image alone after it failed.

From 1 s, doubled at each failure, with jitter, so that many installations do not come back
together; at most 15 minutes, and never longer than four intervals or a minute, whichever is more,
so that an image that is polled often is not forgotten. A registry that says how long to stay away
is believed, up to `MAX_ASKED_S`.
"""

from collections.abc import Callable

FIRST_S = 1.0
MAX_S = 900.0
MAX_INTERVALS = 4
MIN_MAX_S = 60.0

MAX_ASKED_S = 6 * 3600.0
"""Docker Hub's window of pulls; whoever asks for more is mistaken."""


class Backoff:
    """The failures of one thing, in a row. Times are seconds on CLOCK_BOOTTIME."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._failed_at = float("-inf")
        self.until = float("-inf")

    def succeeded(self, *, started_at: float) -> None:
        """Forget every failure, unless one is newer than the poll that succeeded."""
        if started_at >= self._failed_at:
            self._failures = 0
            self.until = float("-inf")

    def failed(
        self, *, started_at: float, now: float, every_s: float, asked_s: float | None = None
    ) -> None:
        """Count a failure and set `until`.

        Polls that were under way together fail together; they count once.

        Args:
            started_at: When the poll that failed was begun.
            now: When it failed.
            every_s: The interval at which it is polled.
            asked_s: How long the registry asked us to stay away; None if it did not.
        """
        if started_at >= self._failed_at:
            self._failures += 1
            self._failed_at = now
            self.until = now + self._wait_s(every_s)
        if asked_s is not None:
            self.until = max(self.until, now + min(asked_s, MAX_ASKED_S))

    def _wait_s(self, every_s: float) -> float:
        longest_s = min(MAX_S, max(MAX_INTERVALS * every_s, MIN_MAX_S))
        doubled_s = FIRST_S * 2.0 ** min(self._failures - 1, 32)
        return min(doubled_s, longest_s) * (0.5 + self._random() / 2)
