"""The supervisor: owns the listening sockets, restarts children, and does nothing else.

It is the smallest program in the tree because everything else may die but this (DESIGN 3): one
thread, one loop over `selectors`, standard library only, nothing of trafficmgr imported. It never
accepts a connection and never reads a datagram.

* A slot's sockets stay open here while its worker is dead, so that connections in the accept queue
  and datagrams in the buffer are served by the successor.
* A child that ended is started again, at once at first, slower if it keeps ending.
* The controller learns over a socket pair which workers ended when; nothing else is said.
* If the supervisor itself is killed, its children serve on. The next run on the same state_dir
  ends them by recorded identity and starts its own. The groups are not its business.

Read on in `loop`; then `child`, `sockets`, `link`, `state`, `identity`.
"""

from trafficmgr.supervisor.loop import run
from trafficmgr.supervisor.spec import CannotStart, Spec

__all__ = ["CannotStart", "Spec", "run"]
