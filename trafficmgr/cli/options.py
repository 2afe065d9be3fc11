"""Options and arguments that several verbs share, so that they read the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", help="The service's state_dir.", show_default=False),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The service's config (default: trafficmgr.yaml).",
        show_default=False,
    ),
]
ConfigByName = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The service's config (default: trafficmgr.yaml).",
        show_default=False,
    ),
]
"""For verbs whose -c is a container."""

Container = Annotated[
    str,
    typer.Option("--container", "-c", metavar="NAME", help="Only this one.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends.")]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's name.")]
MaybeEndpoint = Annotated[
    str | None,
    typer.Argument(metavar="ENDPOINT", help="Only this endpoint.", show_default=False),
]
MaxFailed = Annotated[
    int | None,
    typer.Option(
        "--max-failed",
        metavar="N",
        min=0,
        help="Exit with 1 if more requests than this failed.",
        show_default=False,
    ),
]
ConfigFile = Annotated[Path, typer.Argument(metavar="FILE", help="The config.")]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id, as in `status`.")]
MaybeGroup = Annotated[
    str | None,
    typer.Argument(metavar="GROUP", help="Only this group.", show_default=False),
]
