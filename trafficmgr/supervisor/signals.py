"""Signals as bytes on a socket: handlers only enqueue, the loop reads them when it is ready.

The interpreter's wakeup descriptor gets one byte per signal, its number (signal.set_wakeup_fd).
"""

import contextlib
import signal
import socket
from collections.abc import Iterator

WANTED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def caught() -> Iterator[socket.socket]:
    """Catch our signals; yields the socket that becomes readable when one came."""
    inbox, outbox = socket.socketpair()
    with inbox, outbox:
        inbox.setblocking(False)
        outbox.setblocking(False)
        former_fd = signal.set_wakeup_fd(outbox.fileno(), warn_on_full_buffer=False)
        former = {signum: signal.signal(signum, _enqueued) for signum in WANTED}
        try:
            yield inbox
        finally:
            for signum, handler in former.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(former_fd)


def pending(inbox: socket.socket) -> list[int]:
    """Return the signals that came since the last call, oldest first."""
    try:
        return list(inbox.recv(4096))
    except BlockingIOError:
        return []


def _enqueued(_signum: int, _frame: object) -> None:
    """Do nothing: the byte is on its way already. A handler must exist for it to be sent."""
