"""Jobs as files on a folder that all groups share: what was accepted outlives every group.

    waiting/ID   a job that nobody works on          (written, fsynced, then renamed into place)
    taken/ID     a job that somebody works on; its lease counts from its modification time
    done/ID      a job with its result

A job is claimed by renaming it: of all that try, one succeeds. Who claims and dies loses the lease,
and the job goes back to `waiting`. So a job may be done twice, with the same result; it is never
lost, and never without a state for whoever asks.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAITING, TAKEN, DONE = "waiting", "taken", "done"
STATES = (WAITING, TAKEN, DONE)

_ID = re.compile(r"[0-9a-f]{24}")


class Store:
    """One user of the folder; any number of them may use it at once.

    Args:
        folder: Where the jobs are.
        lease_s: How long a job may be taken. Longer than any takes, or it is done twice.
        keep_s: How long a result is kept.
    """

    def __init__(self, folder: Path, *, lease_s: float = 10.0, keep_s: float = 3600.0) -> None:
        self._folder = folder
        self._lease_ns = int(lease_s * 1e9)
        self._keep_ns = int(keep_s * 1e9)
        for state in (*STATES, "half"):
            (folder / state).mkdir(parents=True, exist_ok=True)

    def accept(self, task: dict[str, Any]) -> str:
        """Keep a new job and return its id. Once this returns, it will be done."""
        job = f"{time.time_ns():016x}{secrets.token_hex(4)}"  # so the oldest is first by name
        self._write(WAITING, job, {**task, "id": job})
        return job

    def claim(self) -> dict[str, Any] | None:
        """Take the oldest job that waits; None if there is none."""
        for job in self._ids(WAITING):
            if self._path(DONE, job).exists():
                self._path(WAITING, job).unlink(missing_ok=True)  # done by one who lost the lease
            elif self._moved(job, WAITING, TAKEN):
                return self._read(TAKEN, job)
        return None

    def finish(self, task: dict[str, Any]) -> None:
        """Keep a job's result; whoever else works on it does so in vain."""
        self._write(DONE, task["id"], task)
        self._path(TAKEN, task["id"]).unlink(missing_ok=True)

    def put_back(self, job: str) -> None:
        """Let others have a job that was claimed."""
        self._moved(job, TAKEN, WAITING)

    def look_up(self, job: str) -> dict[str, Any] | None:
        """Return a job with its state, and with its result if it is done; None if there is none.

        It may move while we look, and back once: so we look for a second time before we say no.
        """
        for state in STATES * 2 if _ID.fullmatch(job) else ():
            found = self._read(state, job)
            if found is not None:
                return {**found, "state": state}
        return None

    def tidy(self) -> None:
        """Put back what was taken for too long, and forget old results."""
        now = time.time_ns()
        for job in self._older(TAKEN, now - self._lease_ns):
            self._moved(job, TAKEN, WAITING)
        for job in self._older(DONE, now - self._keep_ns):
            self._path(DONE, job).unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """Return state -> how many jobs have it."""
        return {state: len(self._ids(state)) for state in STATES}

    # -- files ------------------------------------------------------------------------------------

    def _path(self, state: str, job: str) -> Path:
        return self._folder / state / job

    def _read(self, state: str, job: str) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads(self._path(state, job).read_bytes())
        except FileNotFoundError:
            return None  # it is elsewhere by now
        return content

    def _ids(self, state: str) -> list[str]:
        return sorted(filter(_ID.fullmatch, os.listdir(self._folder / state)))  # noqa: PTH208  names

    def _older(self, state: str, than_ns: int) -> Iterator[str]:
        for job in self._ids(state):
            try:
                if self._path(state, job).stat().st_mtime_ns < than_ns:
                    yield job
            except FileNotFoundError:
                continue  # it moved

    def _moved(self, job: str, since: str, to: str) -> bool:
        """Move a job if it still is there; its lease begins before anybody sees it taken."""
        try:
            os.utime(self._path(since, job))
            self._path(since, job).rename(self._path(to, job))
        except FileNotFoundError:
            return False
        return True

    def _write(self, state: str, job: str, content: dict[str, Any]) -> None:
        half = self._folder / "half" / f"{job}.{secrets.token_hex(4)}"
        with half.open("wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        half.rename(self._path(state, job))
        self._sync(state)

    def _sync(self, state: str) -> None:
        folder = os.open(self._folder / state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
