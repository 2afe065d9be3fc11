"""A front end: passes each request on to the back end of its own group, over localhost."""

import http.client
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BACK = os.environ["LOCALHOST"], int(os.environ["BACK_PORT"])
TIMEOUT_S = 10.0


class Handler(BaseHTTPRequestHandler):
    """Answers what the back end answers."""

    def do_GET(self) -> None:
        """Ask the back end; 502 if it does not answer."""
        connection = http.client.HTTPConnection(*BACK, timeout=TIMEOUT_S)
        try:
            connection.request("GET", self.path)
            response = connection.getresponse()
            status, body = response.status, b"the front has it from the back: " + response.read()
        except OSError as error:
            status, body = 502, f"the back end does not answer: {error}\n".encode()
        finally:
            connection.close()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
