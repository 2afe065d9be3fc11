"""`python -m trafficmgr` is the `trafficmgr` command."""

from trafficmgr.cli.main import main

if __name__ == "__main__":
    main()
