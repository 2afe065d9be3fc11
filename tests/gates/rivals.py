"""The fixed thresholds that others judge by, as their sources have them.

Both look once a minute whether 99 % of the candidate's requests in that minute succeeded.

* Flagger counts failed checks, never forgets one, and rolls back at `threshold` of them; a minute
  without a request is a failed check. Its default is 1; 5 is what its examples have.
* Argo Rollouts aborts with more than `failureLimit` failed measurements, and the default is 0: it
  does what a threshold of 1 does.
"""

from trafficmgr.core.counted import Counted

EVERY_S = 60
LEAST_SUCCESS = 0.99


class FixedThreshold:
    """Rolls back at a number of bad minutes. `rolled_back_at` is when it did."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._bad = 0
        self._before = Counted()
        self.rolled_back_at: int | None = None

    def look(self, second: int, candidate: Counted) -> None:
        """Take the candidate's counts of one more second."""
        if self.rolled_back_at is not None or second % EVERY_S:
            return
        minute, self._before = candidate.since(self._before), candidate
        is_good = minute.failed <= (1 - LEAST_SUCCESS) * minute.finished
        self._bad += not (is_good and minute.finished)
        if self._bad >= self._threshold:
            self.rolled_back_at = second
