"""The logging service of the group: one file for all, on a volume.

POST /api/logs  lines, appended as they are
GET  /api/logs  what was written last, oldest line first
GET  /healthz   "ok"
"""

import os
import threading
from pathlib import Path

from demo.jobs.service import Answer, Request, serve, text

LARGEST_BYTES = 1 << 20
"""Of the file; then it is moved aside and a new one begins."""

SHOWN_BYTES = 1 << 16


class Book:
    """The file, and who may write to it: one at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "jobs.log"
        self._path.touch()
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""
        match request.method, request.path:
            case "POST", "/api/logs":
                self._append(request.body)
                return text("written")
            case "GET", "/api/logs":
                return Answer(200, self._last())
            case "GET", "/healthz":
                return text("ok")
        return text("there is nothing here", 404)

    def _append(self, lines: bytes) -> None:
        with self._lock:
            if self._path.stat().st_size > LARGEST_BYTES:
                self._path.rename(self._path.with_suffix(".log.1"))
            with self._path.open("ab") as file:
                file.write(lines)

    def _last(self) -> bytes:
        with self._lock, self._path.open("rb") as file:
            start = max(0, self._path.stat().st_size - SHOWN_BYTES)
            file.seek(start)
            found = file.read()
        return found.partition(b"\n")[2] if start else found

    def sync(self) -> None:
        """Bring what was written to the disk."""
        with self._lock, self._path.open("rb") as file:
            os.fsync(file.fileno())


def main() -> None:
    """Serve until SIGTERM."""
    book = Book(Path(os.environ.get("VOLUME_LOG", "/log")))  # process mode has no mounts
    serve(book.answer, on_stop=book.sync)


if __name__ == "__main__":
    main()
