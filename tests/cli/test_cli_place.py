"""Which service a verb is about."""

from pathlib import Path

import pytest
from support.cli_support import VALID_CONFIG

from trafficmgr.cli.outcome import CliError, ExitCode
from trafficmgr.cli.place import CONFIG_VARIABLE, STATE_DIR_VARIABLE, find, find_config
from trafficmgr.config.load import load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _config(path: Path, state_dir: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(VALID_CONFIG.replace("./here", state_dir))
    return path


def test_what_was_said_on_purpose_goes_first(tmp_path: Path) -> None:
    _config(tmp_path / "trafficmgr.yaml", "./default")
    said = _config(tmp_path / "said.yaml", "./said")
    in_env = _config(tmp_path / "env.yaml", "./env")
    env_config = {CONFIG_VARIABLE: str(in_env)}
    env_both = {STATE_DIR_VARIABLE: str(tmp_path / "env-state"), **env_config}

    assert find(Path("given"), said, env_both).state_dir == tmp_path / "given"
    assert find(None, said, env_both).state_dir == tmp_path / "said"
    assert find(None, None, env_both).state_dir == tmp_path / "env-state"
    assert find(None, None, env_config).state_dir == tmp_path / "env"
    assert find(None, None, {}).state_dir == tmp_path / "default"


@pytest.mark.parametrize("written", ["./state", "../elsewhere", "/var/lib/trafficmgr"])
def test_the_state_dir_is_the_one_that_the_loader_finds(tmp_path: Path, written: str) -> None:
    """`status` reads one key in a hurry; `run` loads the whole file. They must agree."""
    config = _config(tmp_path / "etc" / "shop.yaml", written)

    assert find(None, config, {}).state_dir == load(config).state_dir


def test_the_default_state_dir_is_the_loaders(tmp_path: Path) -> None:
    config = tmp_path / "shop.yaml"
    config.write_text(VALID_CONFIG.replace("state_dir: ./here\n", ""))

    assert find(None, config, {}).state_dir == load(config).state_dir


def test_a_config_with_a_mistake_elsewhere_still_says_where_the_service_is(tmp_path: Path) -> None:
    config = tmp_path / "shop.yaml"
    config.write_text("state_dir: ./here\nendpionts: {}\n")

    assert find(None, config, {}).state_dir == tmp_path / "here"


@pytest.mark.parametrize("text", ["state_dir: [", "- a list", "state_dir: 7", None])
def test_a_config_that_cannot_be_read_is_reported_by_the_loader(
    tmp_path: Path, text: str | None
) -> None:
    config = tmp_path / "shop.yaml"
    if text is not None:
        config.write_text(text)

    with pytest.raises(CliError, match=r"shop\.yaml") as caught:
        find(None, config, {})

    assert caught.value.code is ExitCode.bad_config


def test_nothing_to_go_by_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(CliError, match=r"no trafficmgr\.yaml here.*-c FILE.*--state-dir") as caught:
        find_config(None, {})

    assert caught.value.code is ExitCode.bad_config


def test_not_running_names_the_place_and_how_to_start_it(tmp_path: Path) -> None:
    config = _config(tmp_path / "shop.yaml", "./here")

    error = find(None, config, {}).not_running

    assert error.code is ExitCode.not_running
    assert str(error) == (
        f"trafficmgr is not running on {tmp_path}/here; start it with `trafficmgr run -c {config}`"
    )
