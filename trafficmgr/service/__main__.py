"""`python -m trafficmgr.service` is the controller process."""

import sys

from trafficmgr.service import main

if __name__ == "__main__":
    sys.exit(main())
