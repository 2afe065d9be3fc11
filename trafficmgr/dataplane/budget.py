"""How many requests of an endpoint may be sent a second time.

Without a bound, groups that fail under load would get twice the load. A request that only has to
connect elsewhere was not sent, and is none of it: a group that refuses is passed over at once.
"""

SECONDS = 10
"""How far back requests and repetitions count; as long as gRPC's and Finagle's retry budgets."""

LEAST = 3
"""Repetitions in that time that an endpoint with few requests has all the same (Envoy: 3)."""


class Budget:
    """What one endpoint in one worker repeated, in plain integers that only grow.

    Args:
        asked: Requests until now, from wherever they are counted.
    """

    __slots__ = ("_past", "repeated")

    def __init__(self, asked: int = 0) -> None:
        self.repeated = 0
        self._past = [(asked, 0)]  # the oldest first

    def rotate(self, asked: int) -> None:
        """Note a second's end; `asked` is counted as for the constructor."""
        past, now = self._past, (asked, self.repeated)
        if past[0] != now:  # while nothing is asked, nothing has to be remembered
            past.append(now)
            del past[:-SECONDS]

    def take(self, asked: int, pct: int) -> bool:
        """Whether one more request may be repeated; if so it is counted.

        Args:
            asked: Requests until now.
            pct: Of the requests of the last SECONDS; 0 is never.
        """
        then, repeated = self._past[0]
        allowed = max(LEAST, (asked - then) * pct // 100)
        if not pct or self.repeated - repeated >= allowed:
            return False
        self.repeated += 1
        return True
