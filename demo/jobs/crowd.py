"""Users of the job generator: they bring numbers all the time, and want every answer.

    python -m demo.jobs.crowd 127.0.0.1:8080 [--host jobs.apps.test] [--seconds 30]

Whatever was answered with 201 is a promise: a job that was accepted and has no result in the end is
lost, and so is one with a wrong result. The exit code is 0 only if nothing failed and nothing was
lost.
"""

import argparse
import http.client
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from typing import Any, Self

PERIOD_S = 0.25
"""Between two jobs of a user."""

ASK_EVERY_S = 0.1
REQUEST_TIMEOUT_S = 20.0


class Crowd:
    """Some users, each in a thread, from the beginning of a `with` block to its end.

    Attributes:
        accepted: Job -> the number in it.
        finished: Job -> what was answered in the end.
        failed: What went wrong, as sentences.
        latencies_s: How long each request took that was answered.
    """

    def __init__(self, place: str, host: str, *, users: int = 8) -> None:
        self.accepted: dict[str, int] = {}
        self.finished: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        self.latencies_s: list[float] = []
        self._place = place
        self._host = host
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(n,)) for n in range(users)]

    def __enter__(self) -> Self:
        """Let them begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let each finish what it is at."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    # -- what became of it ------------------------------------------------------------------------

    @property
    def requests(self) -> int:
        """How many requests came to an end, good or bad."""
        return len(self.latencies_s) + len(self.failed)

    def lost(self, within_s: float = REQUEST_TIMEOUT_S) -> list[str]:
        """Ask for all that has no answer yet, for so long; return the jobs that have none then."""
        deadline = time.monotonic() + within_s
        while (left := self.accepted.keys() - self.finished.keys()) and time.monotonic() < deadline:
            for job in left:
                self._look(job)
            time.sleep(ASK_EVERY_S)
        return sorted(left)

    def wrong(self) -> list[str]:
        """Return the jobs whose factors are not what makes the number."""
        return [
            job
            for job, answer in self.finished.items()
            if math.prod(answer["factors"]) != self.accepted[job]
        ]

    def versions(self) -> Counter[str]:
        """Return version of the processor -> how many jobs it has done."""
        return Counter(answer["by"] for answer in self.finished.values())

    def p99_ms(self) -> float:
        """Return the 99th percentile of all requests, in milliseconds (nearest rank)."""
        ordered = sorted(self.latencies_s)
        return round(ordered[math.ceil(len(ordered) * 0.99) - 1] * 1000, 1) if ordered else 0.0

    def receipt(self) -> str:
        """Return the figures in one line, once all has been asked for that is still open."""
        lost, versions = self.lost(), self.versions()
        done = ", ".join(f"{count} by {name}" for name, count in sorted(versions.items()))
        return (
            f"{self.requests} requests, {len(self.failed)} failed, p99 {self.p99_ms():g} ms; "
            f"{len(self.accepted)} jobs accepted, {len(self.finished)} finished "
            f"({done}), {len(lost)} lost, {len(self.wrong())} wrong"
        )

    # -- what they do -----------------------------------------------------------------------------

    def _live(self, number: int) -> None:
        try:
            self._is_over.wait(number * PERIOD_S / len(self._threads))
            while not self._is_over.wait(PERIOD_S):
                self._bring()
        except Exception as error:  # noqa: BLE001  in a thread nobody else would hear of it
            self.failed.append(f"the user itself: {error!r}")

    def _bring(self) -> None:
        """Bring a number, and ask until its result is there or it is time to leave."""
        number = random.randint(2, 10**9)
        answer = self._request("POST", "/jobs", json.dumps({"number": number}), wanted=201)
        if answer is None:
            return
        job = answer["id"]
        self.accepted[job] = number
        while not self._look(job) and not self._is_over.wait(ASK_EVERY_S):
            pass

    def _look(self, job: str) -> bool:
        answer = self._request("GET", f"/jobs/{job}", wanted=200)
        if answer is None or answer["state"] != "done":
            return False
        self.finished[job] = answer
        return True

    def _request(
        self, method: str, path: str, body: str | None = None, *, wanted: int
    ) -> dict[str, Any] | None:
        """Make a request on a connection of its own; None, and a sentence in `failed`, if not."""
        since = time.monotonic()
        connection = http.client.HTTPConnection(self._place, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Host": self._host})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"{method} {path}: {error!r}")
            return None
        finally:
            connection.close()
        if response.status != wanted:
            self.failed.append(f"{method} {path}: {response.status} {content[:200]!r}")
            return None
        self.latencies_s.append(time.monotonic() - since)
        answer: dict[str, Any] = json.loads(content)
        return answer


def main() -> int:
    """Bring jobs for a while; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("place", help="where HTTP is proxied: 127.0.0.1:8080")
    parser.add_argument("--host", default="jobs.apps.test", help="the endpoint's host")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long")
    options = parser.parse_args()
    with Crowd(options.place, options.host) as crowd:
        time.sleep(options.seconds)
    print(crowd.receipt())
    for sentence in crowd.failed[:5]:
        print(sentence)
    return 1 if crowd.failed or crowd.lost() or crowd.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
