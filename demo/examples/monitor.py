"""A monitor: asks the app every few seconds, over localhost, and writes down what it got."""

import os
import time
import urllib.request

TIMEOUT_S = 5.0


def main() -> None:
    """Ask for ever."""
    every_s = float(os.environ["EVERY_S"])
    url = f"http://{os.environ['LOCALHOST']}:{os.environ['PORT']}/healthz"
    while True:
        since = time.monotonic()
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                said = str(response.status)
        except OSError as error:
            said = str(error)
        print(f"{said} after {(time.monotonic() - since) * 1000:.0f} ms", flush=True)
        time.sleep(every_s)


if __name__ == "__main__":
    main()
