"""The job generator: a web front, and the hands that bring jobs to the processor of its group.

    POST /jobs      {"number": 91} -> 201 {"id": ...}: from then on the job is safe, whatever ends
    GET  /jobs/ID   its state, and its result once it is done; any group knows every job
    GET  /logs      what the group's logging service has written down
    GET  /          a page;  GET /healthz  "ok"

A group that is told to end lets go of what it has not begun; any other group finishes it.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

from demo.jobs.service import Answer, NoAnswerError, Notebook, Request, ask, json_of, serve, text
from demo.jobs.store import Store

WORKER_PORT, LOGS_PORT = 8000, 8080
LARGEST = 10**12
"""Of what is taken apart into primes; a few hundredths of a second at most."""

HANDS = 2
"""How many jobs a group works on at once."""

LOOK_EVERY_S = 0.1
REST_S = 0.5
"""After a job that our processor did not take: others shall have it."""

TIDY_EVERY_S = 1.0

PAGE = """\
<!doctype html><title>jobs</title><meta name="viewport" content="width=device-width">
<h1>Take a number apart</h1>
<form><input name="n" type="number" min="2" max="1000000000000" value="600851475143" autofocus>
<button>go</button></form><pre></pre>
<script>
  const out = document.querySelector("pre"), say = (value) => (out.textContent = value);
  document.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const number = Number(event.target.n.value);
    let job = await (await fetch("jobs", {method: "POST", body: JSON.stringify({number})})).json();
    for (const id = job.id; id && job.state !== "done"; ) {
      job = await (await fetch("jobs/" + id)).json();
      say(JSON.stringify(job, null, 2));
      await new Promise((done) => setTimeout(done, 100));
    }
    if (job.error) say(job.error);
  };
</script>
"""


class Front:
    """What users see."""

    def __init__(self, store: Store, notebook: Notebook, wanted: threading.Event) -> None:
        self._store = store
        self._notebook = notebook
        self._wanted = wanted

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        match request.method, request.path.strip("/").split("/"):
            case "GET", [""]:
                return Answer(200, PAGE.encode(), "text/html; charset=utf-8")
            case "GET", ["healthz"]:
                return text("ok")
            case "POST", ["jobs"]:
                return self._accept(request.body)
            case "GET", ["jobs", job]:
                found = self._store.look_up(job)
                return json_of(found) if found else json_of({"error": "no such job"}, 404)
            case "GET", ["logs"]:
                return self._logs()
        return text("there is nothing here", 404)

    def _accept(self, body: bytes) -> Answer:
        try:
            number = json.loads(body)["number"]
        except (ValueError, KeyError, TypeError):
            number = None
        if type(number) is not int or not 2 <= number <= LARGEST:
            return json_of({"error": f'send {{"number": N}}, N from 2 to {LARGEST}'}, 400)
        job = self._store.accept({"number": number})
        self._wanted.set()
        self._notebook.write(f"accepted job {job}")
        return json_of({"id": job}, 201)

    def _logs(self) -> Answer:
        try:
            return Answer(200, ask(LOGS_PORT, "GET", "/api/logs"))
        except NoAnswerError as error:
            return text(f"the logging service does not answer: {error}", 503)


class Hands:
    """Threads that claim jobs, bring them to the processor, and keep what comes back."""

    def __init__(self, store: Store, notebook: Notebook, wanted: threading.Event) -> None:
        self._store = store
        self._notebook = notebook
        self._wanted = wanted
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(HANDS)]
        self._threads.append(threading.Thread(target=self._tidy))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish the jobs in hand and claim no other."""
        self._is_over.set()
        self._wanted.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._is_over.is_set():
            task = self._store.claim()
            if task is None:
                self._wanted.wait(LOOK_EVERY_S)  # jobs of other groups tell us nothing
                self._wanted.clear()
            elif not self._is_done(task):
                self._store.put_back(task["id"])
                self._is_over.wait(REST_S)

    def _is_done(self, task: dict[str, Any]) -> bool:
        try:
            done = json.loads(ask(WORKER_PORT, "POST", "/work", json.dumps(task).encode()))
        except (NoAnswerError, ValueError) as error:
            self._notebook.write(f"job {task['id']} is for others: {error}")
            return False
        self._store.finish(done)
        return True

    def _tidy(self) -> None:
        while not self._is_over.wait(TIDY_EVERY_S):
            self._store.tidy()


def main() -> None:
    """Serve until SIGTERM."""
    folder = os.environ.get("VOLUME_JOBS", "/jobs")  # process mode has no mounts
    store = Store(Path(folder), lease_s=float(os.environ.get("LEASE_S", "10")))
    notebook, wanted = Notebook("web", LOGS_PORT), threading.Event()
    hands = Hands(store, notebook, wanted)
    serve(Front(store, notebook, wanted).answer, on_stop=hands.close)
    notebook.close()


if __name__ == "__main__":
    main()
