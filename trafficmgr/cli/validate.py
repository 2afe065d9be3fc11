"""`trafficmgr validate`: everything that is wrong with a config, at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trafficmgr.cli.options import AsJson
from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.terminal import show_json

if TYPE_CHECKING:
    from trafficmgr.config.problems import ConfigError
    from trafficmgr.config.settings import Settings

File = Annotated[Path, typer.Argument(metavar="FILE", help="The config to check.")]


def validate(file: File, *, as_json: AsJson = False) -> None:
    """Check a config without touching anything; exit 2 if it can't be used."""
    from trafficmgr.config.load import ConfigError, load  # noqa: PLC0415  pydantic; other verbs don't

    try:
        settings = load(file)
    except ConfigError as error:
        if not as_json:
            raise CliError(str(error), ExitCode.bad_config) from error
        show_json({"file": str(file), "is_valid": False, "problems": _plain(error)})
        raise typer.Exit(ExitCode.bad_config) from error
    if as_json:
        names = sorted(settings.endpoints)
        show_json({"file": str(file), "is_valid": True, "endpoints": names})
    else:
        print(summary(file, settings))


def summary(file: Path, settings: "Settings") -> str:
    """Return the sentence for a config that can be used."""
    names = sorted(settings.endpoints)
    count = "1 endpoint" if len(names) == 1 else f"{len(names)} endpoints"
    return f"{file} is valid: {count}" + (f" ({', '.join(names)})." if names else ".")


def _plain(error: "ConfigError") -> list[dict[str, Any]]:
    return [
        {
            "line": problem.span.line,
            "column": problem.span.column,
            "text": problem.text,
            "hint": problem.hint,
        }
        for problem in error.problems
    ]
