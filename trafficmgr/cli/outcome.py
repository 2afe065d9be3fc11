"""How a verb ends: the exit codes that scripts can use, and the error that carries one."""

from enum import IntEnum

from trafficmgr.core.errors import TrafficmgrError


class ExitCode(IntEnum):
    """What the shell gets. A usage error is 2 as well; that is click's number for it.

    `asks` is `wait`'s: the rollout was paused by itself, and somebody has to decide.
    `exec` ends with the command's own code, so what kept it from running needs one that commands
    do not use: 125, as docker and env(1) have it.
    """

    done = 0
    refused = 1
    bad_config = 2
    not_running = 3
    timed_out = 4
    asks = 5
    exec_failed = 125


class CliError(TrafficmgrError):
    """The verb could not be carried out; main shows the sentence and ends with the code."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.refused) -> None:
        super().__init__(sentence)
        self.code = code
