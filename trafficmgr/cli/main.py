"""The command line: one function per verb, each in a file of its own name (DESIGN 11).

Exit codes: 0 done, 1 could not or was refused, 2 the config or the usage is wrong, 3 the service
is not running, 4 `wait` ran out of time, 5 what it waited for was paused by itself and asks; `exec`
ends with the command's own code, or with 125 if there is none. Whatever goes wrong is one sentence
on stderr. `--json` prints the API's own data.

Start-up time is felt at every call, so verbs import what is heavy (rich, pydantic, aiohttp never)
inside their functions.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trafficmgr import __version__
from trafficmgr.cli.abort import abort
from trafficmgr.cli.apply import apply
from trafficmgr.cli.doctor import doctor
from trafficmgr.cli.events import events
from trafficmgr.cli.exec import exec_
from trafficmgr.cli.hold import hold
from trafficmgr.cli.logs import logs
from trafficmgr.cli.outcome import CliError
from trafficmgr.cli.pause import pause
from trafficmgr.cli.plan import plan
from trafficmgr.cli.promote import promote
from trafficmgr.cli.release import release
from trafficmgr.cli.resume import resume
from trafficmgr.cli.retry import retry
from trafficmgr.cli.rollback import rollback
from trafficmgr.cli.rollouts import rollouts
from trafficmgr.cli.run import run
from trafficmgr.cli.scale import scale
from trafficmgr.cli.show_endpoint import show
from trafficmgr.cli.stats import stats
from trafficmgr.cli.status import status
from trafficmgr.cli.stop import stop
from trafficmgr.cli.validate import validate
from trafficmgr.cli.wait import wait
from trafficmgr.cli.why import why


class Verbs(TyperGroup):
    """The group of all verbs; the one place where their errors are shown."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  click's own signature
        """Carry out the verb; a `CliError` becomes its sentence and its exit code."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(error.code) from error


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CONFIG = (run, validate, doctor, plan, apply)
LOOKS = (status, why, events, rollouts, wait)
INSIDES = (show, logs, exec_, stats)
ORDERS = (promote, pause, resume, abort, rollback, retry, scale, hold, release, stop)

for _verb in (*CONFIG, *LOOKS, *INSIDES, *ORDERS):
    app.command(_verb.__name__.rstrip("_"))(_verb)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"trafficmgr {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback()
def _trafficmgr(*, version: Version = False) -> None:
    """Blue-green upgrades of container groups, behind weighted DNS and an HTTP proxy."""


def main() -> None:
    """Be the `trafficmgr` command."""
    app(prog_name="trafficmgr")
