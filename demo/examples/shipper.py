"""A log shipper: follows the app's file and ships each line; here to its own output."""

import os
import time
from pathlib import Path

LOOK_EVERY_S = 0.1


def main() -> None:
    """Follow the file from its beginning, from when it is there."""
    path = Path(os.environ.get("VOLUME_LOGS", "/logs")) / "app.log"  # process mode has no mounts
    while not path.exists():
        time.sleep(LOOK_EVERY_S)
    with path.open(encoding="utf-8") as log:
        while True:
            line = log.readline()
            if line:
                print(f"shipped: {line}", end="", flush=True)
            else:
                time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    main()
