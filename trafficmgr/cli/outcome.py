"""How a verb ends: the exit codes that scripts can use, and the error that carries one."""

from enum import IntEnum

from trafficmgr.core.errors import TrafficmgrError


class ExitCode(IntEnum):
    """What the shell gets. A usage error is 2 as well; that is click's number for it."""

    done = 0
    refused = 1
    bad_config = 2
    not_running = 3
    timed_out = 4


class CliError(TrafficmgrError):
    """The verb could not be carried out; main shows the sentence and ends with the code."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.refused) -> None:
        super().__init__(sentence)
        self.code = code
