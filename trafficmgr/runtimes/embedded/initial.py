"""Init containers: one after another, each to its end, before the others start.

One that ended with exit code 0 is not run again when an interrupted start is completed; one that
still runs is waited for. There is no deadline here: the rollout has one, and a stop ends the wait.
"""

import asyncio
from collections.abc import Mapping

from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.embedded.ending import gone
from trafficmgr.runtimes.embedded.folders import ContainerFolder
from trafficmgr.runtimes.embedded.launch import launch
from trafficmgr.runtimes.embedded.loglines import last_lines
from trafficmgr.runtimes.embedded.threads import to_its_end

_TOLD_LINES = 3


async def run_to_its_end(
    group: str, container: ContainerFolder, secret_env: Mapping[str, str]
) -> None:
    """Run an init container.

    Args:
        group: Its group.
        container: Its folder.
        secret_env: As for `launch`.

    Raises:
        RuntimeFailure: It could not be executed, or did not end with exit code 0.
    """
    await to_its_end(launch, group, container, secret_env)
    found = container.identity()
    if found is not None and found.is_of_this_boot:
        await gone(found.shim, None)
    record = container.exit()
    if record is None or record.code != 0:
        how = record.reason if record is not None else "nobody knows how, its shim is gone"
        said = await asyncio.to_thread(last_lines, container.log_files(), _TOLD_LINES)
        last = f" Its last words: {said}" if said else ""
        raise RuntimeFailure(
            f'embedded: cannot start group {group}: init container "{container.path.name}" ended: '
            f"{how}.{last} Nothing of the group runs, its logs are kept, and traffic stays where "
            "it is. Correct its command or what it looks for."
        )
