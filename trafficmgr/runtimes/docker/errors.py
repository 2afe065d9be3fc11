"""What an engine's trouble means: refused for good, or unknown for now (promise 12).

An engine that can't be reached, breaks off or is just ending has said nothing about a group. All
else that it answers is its answer.
"""

from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError

NOT_FOUND = 404
CONFLICT = 409
SERVER_ERROR = 500
SECOND_LOOK_S = 0.5
"""An engine that goes down answers errors of all kinds until it is gone. So after an error of the
server's own it is asked once more this much later, before the error is believed."""

_OF_A_DYING_ENGINE = (
    "context canceled",
    "transport is closing",
    "shutting down",
    "database not open",
    "error while dialing",
    "containerd.sock",
    "no space left on device",
    "too many open files",
    "cannot allocate memory",
)
"""Parts of errors 5xx that an engine gives while it goes down, or has no room; it may come back."""


class EngineRefusal(RuntimeFailure):
    """The engine has answered: no.

    `status` is HTTP's, `said` the engine's own words. Whoever wanted it makes a sentence of it.
    """

    def __init__(self, status: int, said: str) -> None:
        """Keep the answer."""
        super().__init__(f"docker: the engine answers {status}: {said}.")
        self.status = status
        self.said = said


def away(base_url: str, why: object) -> RuntimeUnknownError:
    """Return the error of an engine that can't be asked."""
    return RuntimeUnknownError(
        f"docker: the engine at {base_url} can't be asked: {why}. Nothing is decided about its "
        "groups, and traffic stays where it is. Look whether it runs (systemctl status docker) "
        "and whether we may use its socket; it is tried again."
    )


def innermost(error: BaseException) -> str:
    """Return what it was at the bottom: "No such file or directory", not three wrappings of it."""
    seen = {id(error)}
    while True:
        inner = next((a for a in (*error.args, error.__cause__) if isinstance(a, Exception)), None)
        if inner is None or id(inner) in seen:
            said = error.strerror if isinstance(error, OSError) else None
            return said or str(error) or type(error).__name__
        error = inner
        seen.add(id(error))


def refused(base_url: str, status: int, said: str) -> RuntimeFailure:
    """Return the error that an answer stands for."""
    is_dying = status >= SERVER_ERROR and any(part in said.lower() for part in _OF_A_DYING_ENGINE)
    is_outgrown = "client version" in said and "too old" in said
    if is_dying or is_outgrown:
        return away(base_url, f"it answers {status}: {said}")
    return EngineRefusal(status, said)
