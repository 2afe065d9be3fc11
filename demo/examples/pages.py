"""A site: serves the files of a folder, and does not care who brings them."""

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

if __name__ == "__main__":
    folder = os.environ.get("VOLUME_CONTENT", "/content")  # process mode has no mounts
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), handler).serve_forever()
