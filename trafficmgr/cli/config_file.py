"""A config that is sent to a running service: which service, and what is sent.

The text goes with the path, because the service may not be allowed to read what we can; relative
paths inside it, and messages, go by the path.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import CONFIG_VARIABLE, STATE_DIR_VARIABLE, Place, find


def service_of(
    file: Path,
    state_dir: Path | None,
    config: Path | None,
    env: Mapping[str, str] = os.environ,
) -> Place:
    """Return the service that is meant: as for every verb, but the file itself is the default."""
    is_said = state_dir or config or env.get(STATE_DIR_VARIABLE) or env.get(CONFIG_VARIABLE)
    return find(state_dir, config, env) if is_said else find(None, file, env)


def sent(file: Path) -> dict[str, Any]:
    """Return what is sent of a file; what is no UTF-8 is escaped, for the service to complain of.

    Raises:
        CliError: It can't be read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        text = f"{file}: the file can't be read: {error.strerror}; check the path"
        raise CliError(text, ExitCode.bad_config) from error
    return {"path": str(file.absolute()), "text": data.decode(errors="surrogateescape")}
