"""`trafficmgr plan`: what `apply` would do."""

from trafficmgr.cli.client import Client
from trafficmgr.cli.config_file import sent, service_of
from trafficmgr.cli.options import AsJson, Config, ConfigFile, StateDir
from trafficmgr.cli.outcome import CliError
from trafficmgr.cli.terminal import show_answer


def plan(
    file: ConfigFile,
    *,
    as_json: AsJson = False,
    state_dir: StateDir = None,
    config: Config = None,
) -> None:
    """Say what `apply` would change, and change nothing; exit 1 if it would be refused."""
    client = Client(service_of(file, state_dir, config))
    answer = client.post("/v1/plan", sent(file))
    show_answer(answer, as_json=as_json)
    if not answer.get("is_possible", True):
        raise CliError(f"{file} needs a restart; `apply` would change nothing.")
