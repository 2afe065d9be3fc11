"""`trafficmgr run`: check the config and become the supervisor."""

import sys
from typing import TYPE_CHECKING

import typer

from trafficmgr.cli.options import Config
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import find_config

if TYPE_CHECKING:
    from trafficmgr.config.settings import Settings
    from trafficmgr.supervisor import Spec

BACKLOG = 4096
"""Connections that may wait in one accept queue; the kernel's own default limit (somaxconn)."""


def run(config: Config = None) -> None:
    """Run the service until it is told to stop."""
    from trafficmgr import supervisor  # noqa: PLC0415  the other verbs do not need it
    from trafficmgr.config.load import ConfigError, Look, load  # noqa: PLC0415  as above

    try:
        settings = load(find_config(config), certificates=Look.needed)
    except ConfigError as error:
        raise CliError(str(error), ExitCode.bad_config) from error
    raise typer.Exit(supervisor.run(spec_of(settings)))


def spec_of(settings: "Settings") -> "Spec":
    """Return what the supervisor has to know of the settings."""
    from trafficmgr.supervisor import Spec  # noqa: PLC0415  as above

    state_dir = settings.state_dir.absolute()
    python = (sys.executable, "-m")
    return Spec(
        state_dir=state_dir,
        dns=tuple((address.host, address.port) for address in settings.listen_dns),
        http=tuple((address.host, address.port) for address in settings.listen_http),
        https=tuple((address.host, address.port) for address in settings.listen_https),
        slots=settings.workers,
        backlog=BACKLOG,
        controller_argv=(
            *python,
            "trafficmgr.service",
            "--config",
            str(settings.path.absolute()),
            "--state-dir",
            str(state_dir),
        ),
        worker_argv=(
            *python,
            "trafficmgr.dataplane.worker",
            "--state-dir",
            str(state_dir),
            "--link",
            str(state_dir / "run" / "link.sock"),
        ),
    )
