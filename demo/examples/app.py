"""An app: says hello, and writes a line for each request to a file, if it has a folder for it."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NAME = Path("name").read_text("utf-8").strip()
FOLDER = Path(os.environ.get("VOLUME_LOGS", "/logs"))  # process mode has no mounts


class Handler(BaseHTTPRequestHandler):
    """Answers everything alike."""

    def do_GET(self) -> None:
        """Answer, and write it down."""
        body = f"hello from {NAME}, you asked for {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if FOLDER.is_dir():
            with (FOLDER / "app.log").open("a", encoding="utf-8") as log:
                log.write(f"{self.command} {self.path} 200\n")


if __name__ == "__main__":
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
