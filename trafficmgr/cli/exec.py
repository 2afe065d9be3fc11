"""`trafficmgr exec`: a command inside a container, with its exit code as ours."""

from typing import Annotated

import typer

from trafficmgr.cli.client import Client, segment
from trafficmgr.cli.options import ConfigByName, Container, Group, StateDir
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import find

Command = Annotated[
    list[str], typer.Argument(metavar="-- COMMAND [ARGS]...", help="What to run; no shell is used.")
]
Tty = Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal, for shells.")]


def exec_(
    group: Group,
    command: Command,
    *,
    container: Container = "",
    tty: Tty = False,
    state_dir: StateDir = None,
    config: ConfigByName = None,
) -> None:
    """Run a command inside a container: the first one, or that of -c.

    Standard input is passed on when it is no terminal, or with --tty. The exit code is the
    command's own; 125 says that it could not be run.
    """
    from trafficmgr.cli.exec_session import ExecClient  # noqa: PLC0415  no other verb needs it

    client = Client(find(state_dir, config))
    wanted = {"command": command, "container": container, "tty": tty}
    try:
        with client.upgraded(f"/v1/groups/{segment(group)}/exec") as connection:
            code = ExecClient(connection, has_tty=tty).run(wanted)
    except KeyboardInterrupt:
        code = 130  # 128 + SIGINT, as a shell has it
    except BrokenPipeError:
        code = 141  # 128 + SIGPIPE: whoever reads us has enough
    except CliError as error:
        if error.code is not ExitCode.refused:
            raise
        raise CliError(str(error), ExitCode.exec_failed) from error
    raise typer.Exit(code)
