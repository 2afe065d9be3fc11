"""The job processor: takes numbers apart into primes.

POST /work      a job -> the job with `factors`, and with who did it; 503 once it drains
GET  /drain     take nothing more; answers when nothing is in hand (its `pre_stop`)
GET  /healthz   "ok"
"""

import json
import threading
from http import HTTPStatus

from demo.jobs.service import Answer, Notebook, Request, json_of, serve, text, version

LOGS_PORT = 8080
DRAIN_S = 8.0
"""How long `/drain` waits at most; below the stop grace of 10 s, which it is part of."""


def factors(number: int) -> list[int]:
    """Return the prime factors, smallest first."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1 if divisor == 2 else 2
    return [*found, number] if number > 1 else found


class Worker:
    """Works on what it is given, and knows how much that is."""

    def __init__(self, notebook: Notebook, name: str) -> None:
        self._notebook = notebook
        self._name = name
        self._in_hand = 0
        self._is_draining = False
        self._changed = threading.Condition()

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        match request.method, request.path:
            case "POST", "/work":
                return self._work(request.body) if self._may_begin() else text("draining", 503)
            case "GET", "/drain":
                return self._drain()
            case "GET", "/healthz":
                return text("ok")
        return text("there is nothing here", 404)

    def _may_begin(self) -> bool:
        with self._changed:
            if not self._is_draining:
                self._in_hand += 1
            return not self._is_draining

    def _work(self, body: bytes) -> Answer:
        try:
            task = json.loads(body)
            done = {**task, "factors": factors(task["number"]), "by": self._name}
            self._notebook.write(f"finished job {task['id']}: {done['factors']}")
            return json_of(done)
        finally:
            with self._changed:
                self._in_hand -= 1
                self._changed.notify_all()

    def _drain(self) -> Answer:
        with self._changed:
            self._is_draining = True
            is_empty = self._changed.wait_for(lambda: not self._in_hand, DRAIN_S)
        self._notebook.write("drained" if is_empty else "still at work, but out of time")
        return text("drained", HTTPStatus.OK if is_empty else HTTPStatus.SERVICE_UNAVAILABLE)

    def stop(self) -> None:
        """Begin nothing more; what is in hand is an answer under way."""
        with self._changed:
            self._is_draining = True


def main() -> None:
    """Serve until SIGTERM."""
    notebook = Notebook("worker", LOGS_PORT)
    worker = Worker(notebook, version())
    serve(worker.answer, on_stop=worker.stop)
    notebook.close()


if __name__ == "__main__":
    main()
