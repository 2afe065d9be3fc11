"""A source puller: fetches $SOURCE into a folder; once, or every $EVERY_S seconds.

A page is replaced as a whole, so nobody is ever served half of one. The first pull must succeed; a
later one that fails leaves what is there.
"""

import os
import time
import urllib.request
from pathlib import Path

TIMEOUT_S = 10.0


def pull(source: str, folder: Path) -> None:
    """Fetch the source once."""
    with urllib.request.urlopen(source, timeout=TIMEOUT_S) as response:  # noqa: S310  who runs us says what
        content = response.read()
    half = folder / ".half"
    half.write_bytes(content)
    half.replace(folder / "index.html")
    print(f"pulled {len(content)} bytes", flush=True)


def main() -> None:
    """Pull, and go on pulling if that is wanted."""
    source, every_s = os.environ["SOURCE"], float(os.environ.get("EVERY_S", "0"))
    folder = Path(os.environ.get("VOLUME_CONTENT", "/content"))  # process mode has no mounts
    pull(source, folder)
    while every_s:
        time.sleep(every_s)
        try:
            pull(source, folder)
        except OSError as error:
            print(f"not pulled: {error}", flush=True)


if __name__ == "__main__":
    main()
