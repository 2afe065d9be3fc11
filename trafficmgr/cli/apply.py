"""`trafficmgr apply`: let the running service go by another config."""

from trafficmgr.cli.client import Client
from trafficmgr.cli.config_file import sent, service_of
from trafficmgr.cli.options import AsJson, Config, ConfigFile, StateDir
from trafficmgr.cli.terminal import show_answer


def apply(
    file: ConfigFile,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Apply a config without a restart, all of it or nothing; exit 2 if it can't be used."""
    client = Client(service_of(file, state_dir, config))
    show_answer(client.post("/v1/apply", sent(file)), as_json=as_json)
