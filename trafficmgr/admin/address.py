"""Where the admin socket is, and how both ends reach it however long its path is.

Nothing but the standard library behind it, because the command line imports this page at every
start.
"""

from pathlib import Path

from trafficmgr.controller.files import short_socket_path as reachable

__all__ = ["NAME", "reachable", "socket_path"]

NAME = "admin.sock"


def socket_path(state_dir: Path) -> Path:
    """Return where the service of a state_dir listens for its operators."""
    return state_dir / NAME
