"""The shim: one small process that keeps one container's process, whatever happens to us.

Started as `python -I -S shim.py FOLDER`, it needs nothing but the standard library, this folder's
`shimapp.py` and `shimlog.py`, and that other folder (the words of its files are in `folders.py`).
What it promises:

* It is in a session of its own and the parent of nobody's parent: no signal, terminal or death of
  the controller reaches it. It sets no PDEATHSIG.
* It holds an flock on `lock` for life. A second start in the same folder changes nothing; nor does
  one after `exit.json` was written. So starting a container twice is a no-op.
* It is a subreaper: whatever the application leaves behind, even a daemon in a session of its own,
  is its child in the end, and is killed with the application; so is all of its control group.
* `identity.json` is written once the application runs, `exit.json` once all of it is gone; both by
  write, fsync, rename. There is never half a file.
* It reads the application's output, notes when each line came, and rotates `log` by size. A full
  disk costs log lines, which are counted, and nothing else.
* Secrets come through its stdin, go into the application's environment and nowhere else.
* SIGTERM ends it in order: the image's stop signal to the whole process group, the grace, SIGKILL.

There is one shim for each container that runs, so it imports little: about 6 MB of its own memory
and 30 ms until the application runs. `pathlib` and `typing` would add to both. What is in modules
is compiled once for all shims, what stands here each time anew.

Its stdout is a pipe to whoever starts it. It is closed when the start is decided, either way.
"""

import os
import sys

TYPE_CHECKING = False  # mypy takes it for true; typing's own is slow to import
if TYPE_CHECKING or __name__ != "__main__":
    from trafficmgr.runtimes.embedded import shimapp
else:  # isolated: the package can't be imported, and would take its time
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  pathlib is slow to import
    import shimapp

BUSY = b"busy"
"""What it says if another shim has the folder."""


def main(folder: str) -> None:
    """Leave the parent, then look after the container in the folder until it has ended."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir(folder)
    lock = shimapp.take_lock()
    if lock is None:
        os.write(1, BUSY)
    else:
        shimapp.keep_what_is_here()


if __name__ == "__main__":
    main(sys.argv[1])
