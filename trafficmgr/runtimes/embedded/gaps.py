"""What process mode can't give: always, and on this machine."""

import os
from collections.abc import Mapping

from trafficmgr.runtimes.embedded.cgroups import Cgroups
from trafficmgr.runtimes.embedded.vault import Vault

ALWAYS: Mapping[str, str] = {
    "isolated_network": (
        "process mode: each group has a loopback address of its own, and all see the host's network"
    ),
    "shared_localhost": (
        "process mode: members meet at $LOCALHOST, which is the group's own address"
    ),
    "isolated_files": "process mode: a container sees the host's files",
    "isolated_processes": "process mode: a container sees the host's processes",
    "mount_paths": "process mode has no mounts: the folder is in VOLUME_NAME",
    "read_only_mounts": "process mode has no mounts: only the files' own modes protect them",
    "empty_dir_size": "process mode: an empty_dir is a folder of the disk that state_dir is on",
    "stats_network": "process mode: groups share the host's network, which counts for all of them",
}


def gaps(cgroups: Cgroups, vault: Vault) -> Mapping[str, str]:
    """Return behaviour -> why not here."""
    return gaps_of(cgroups.gaps, secrets=vault.gap, is_root=os.geteuid() == 0)


def gaps_of(limits: Mapping[str, str], *, secrets: str, is_root: bool) -> Mapping[str, str]:
    """Return behaviour -> why not, for a machine that was looked at.

    Args:
        limits: What control groups can't give there: behaviour -> why not.
        secrets: Why there can be no secret files; "" if there can.
        is_root: Whether we are root there.
    """
    found = dict(ALWAYS) | dict(limits)
    if not is_root:
        found["user"] = "only root can start processes of other users: they run as we do"
    if secrets:
        found["secret_files"] = secrets
    return found
