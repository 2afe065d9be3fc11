"""Which service a verb is about: its config file and its state_dir, from whatever was said.

The first of these that is there counts: `--state-dir`, `--config`, the environment's
TRAFFICMGR_STATE_DIR, its TRAFFICMGR_CONFIG, and `trafficmgr.yaml` in the current folder. What was
said on purpose goes before what happens to lie around.

Of the config only `state_dir` is read here, and nothing is checked: `trafficmgr status` must answer
quickly, and also while somebody is in the middle of editing the file.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trafficmgr.cli.outcome import CliError, ExitCode

DEFAULT_CONFIG = Path("trafficmgr.yaml")
CONFIG_VARIABLE = "TRAFFICMGR_CONFIG"
STATE_DIR_VARIABLE = "TRAFFICMGR_STATE_DIR"

DEFAULT_STATE_DIR = "./state"
"""As in config/shape.py; relative to the file, like every path in it."""


@dataclass(frozen=True)
class Place:
    """A service: where its state is, and its config if that is how it was found."""

    state_dir: Path
    config: Path | None = None

    @property
    def not_running(self) -> CliError:
        """The error for a service that nobody has started."""
        file = self.config or "FILE"
        return CliError(
            f"trafficmgr is not running on {self.state_dir}; "
            f"start it with `trafficmgr run -c {file}`",
            ExitCode.not_running,
        )


def find(state_dir: Path | None, config: Path | None, env: Mapping[str, str] = os.environ) -> Place:
    """Return the service that the options and the environment point to.

    Raises:
        CliError: Nothing points to one, or the config can't be read.
    """
    if state_dir is None and config is None and env.get(STATE_DIR_VARIABLE):
        state_dir = Path(env[STATE_DIR_VARIABLE])
    if state_dir is not None:
        return Place(state_dir=state_dir.absolute(), config=config)
    file = find_config(config, env)
    return Place(state_dir=_state_dir_of(file), config=file)


def find_config(config: Path | None, env: Mapping[str, str] = os.environ) -> Path:
    """Return the config file that the options and the environment point to.

    Raises:
        CliError: Nothing points to one. Whether the file is there is not looked at.
    """
    if config is not None:
        return config
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    if DEFAULT_CONFIG.exists():
        return DEFAULT_CONFIG
    raise CliError(
        f"Which trafficmgr? There is no {DEFAULT_CONFIG} here. Name its config with -c FILE (or"
        f" {CONFIG_VARIABLE}), or its state with --state-dir DIR (or {STATE_DIR_VARIABLE}).",
        ExitCode.bad_config,
    )


def _state_dir_of(config: Path) -> Path:
    import yaml  # noqa: PLC0415  not needed when the state_dir was given

    try:
        document = yaml.safe_load(config.read_bytes())
        written = Path(document.get("state_dir", DEFAULT_STATE_DIR))
        return config.absolute().parent / written
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        return _report(config)


def _report(config: Path) -> Path:
    """Let the real loader say what is wrong with the file."""
    from trafficmgr.config.load import ConfigError, load  # noqa: PLC0415  slow; seldom needed

    try:
        return load(config).state_dir
    except ConfigError as error:
        raise CliError(str(error), ExitCode.bad_config) from error
