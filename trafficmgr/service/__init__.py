"""The composition root: the only place where concrete things meet Protocols.

`python -m trafficmgr.service --config FILE --state-dir DIR --supervisor-fd FD` is the controller
process. The supervisor starts it, and starts it again whenever it ends. The order of what happens
here matters:

    lock, journal, then "a controller started";
    what the supervisor has to tell of dead workers, before any worker may say hello;
    what the runtime runs, before anything is decided about it;
    then everything at once: link, ears, registry, admin API.

Read on in `process`, which opens what must be open first; then `runtime`, the engine that the
config names, and `controller`, in which all parts are wired together.
"""

from trafficmgr.service.process import main, run

__all__ = ["main", "run"]
