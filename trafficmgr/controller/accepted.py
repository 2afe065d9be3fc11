"""The config that this run goes by: the last one that was accepted, whole and in order.

A file that somebody is just editing is no config, and one that nobody applied is none of ours. So a
controller reads FILE only once in the life of a `trafficmgr run`; its text is kept in
`state_dir/accepted.json`, `apply` and SIGHUP replace it there before anything is done, and every
later controller of the same run starts from it. The next `run` begins with its FILE again: what
was accepted names the supervisor it was accepted under (docs/decisions/0008).
"""

from pathlib import Path

import msgspec
import structlog

from trafficmgr.config.load import Look, bytes_of, load
from trafficmgr.config.settings import Settings
from trafficmgr.controller.files import replace_file
from trafficmgr.core.noun import Noun

NAME = "accepted.json"
SUPERVISOR = "supervisor.lock"
"""Written by every supervisor at its start: boot id, pid and start time (supervisor/state.py)."""

log = structlog.get_logger()


class Accepted(Noun):
    """A config: the file it was read from, and what that held. `run` names the supervisor.

    `is_ending` says that an operator wants all groups drained and the service ended.
    """

    run: str
    path: str
    text: str
    is_ending: bool = False


def settings_at_start(state_dir: Path, file: Path) -> Settings:
    """Return what a controller starts with: what was accepted in this run, else what FILE holds.

    Raises:
        ConfigError: FILE can't be used.
    """
    kept = _kept(state_dir)
    if kept is not None and kept.run and kept.run == _run(state_dir):
        return load(Path(kept.path), kept.text.encode(), certificates=Look.never)
    data = bytes_of(file)
    settings = load(file, data)
    try:
        keep(state_dir, settings.path, data)
    except OSError as error:  # then the next controller reads the file again; traffic comes first
        log.warning("config_not_kept", reason=str(error))
    return settings


def keep(state_dir: Path, path: Path, data: bytes) -> None:
    """Let this be what the controllers of this run start with.

    Raises:
        OSError: It can't be written; what was accepted before still counts.
    """
    text = data.decode()  # what passed the loader is UTF-8
    kept = Accepted(run=_run(state_dir), path=str(path.absolute()), text=text)
    replace_file(state_dir / NAME, msgspec.json.encode(kept), mode=0o600)  # `env` may have secrets


def keep_ending(state_dir: Path) -> None:
    """Let every later controller of this run go on with draining all groups.

    Raises:
        OSError: It can't be written; a controller that is killed now would deploy again.
    """
    kept = _kept(state_dir)
    if kept is not None:
        ending = msgspec.json.encode(kept.but(is_ending=True))
        replace_file(state_dir / NAME, ending, mode=0o600)


def is_ending(state_dir: Path) -> bool:
    """Whether this run was told to drain all groups and end."""
    kept = _kept(state_dir)
    return kept is not None and kept.is_ending and kept.run == _run(state_dir)


def _kept(state_dir: Path) -> Accepted | None:
    try:
        return msgspec.json.decode((state_dir / NAME).read_bytes(), type=Accepted)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("accepted_config_not_readable", reason=str(error))
        return None


def _run(state_dir: Path) -> str:
    """Return the name of this run: whoever holds the supervisor's lock; "" if nobody knows."""
    try:
        return (state_dir / SUPERVISOR).read_text().strip()
    except OSError:
        return ""
