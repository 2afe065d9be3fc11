"""The volumes of a group as folders of this host.

Process mode has no mounts: a volume does not appear at the path that the config says. Its folder is
in the environment of each container that mounts it, as VOLUME_NAME in capitals. No symlink is put
in its place, since all groups of an image share its tree.

* empty_dir: `.volumes/NAME` in the group's own folder, removed with it. Its size is not limited.
* host_path: the path itself, which must be there.
* secret: files in memory (`vault.py`).

A read-only mount can be written to as far as the files' own modes allow.
"""

import os
import re
from pathlib import Path

from trafficmgr.core.template import ContainerTemplate, EmptyDir, HostPath, SecretFiles, Volume
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure, Secrets
from trafficmgr.runtimes.embedded.users import User
from trafficmgr.runtimes.embedded.vault import Vault

EMPTY_DIRS = ".volumes"
"""No container has such a name."""


class Volumes:
    """The volumes of one group."""

    def __init__(self, spec: GroupSpec, group: Path, vault: Vault) -> None:
        """Know where they are; nothing is made yet.

        Args:
            spec: The group.
            group: Its folder.
            vault: Where secrets are kept.
        """
        self._spec = spec
        self._group = group
        self._vault = vault
        self._volumes = {volume.name: volume for volume in spec.template.volumes}

    def variables(self, container: ContainerTemplate) -> dict[str, str]:
        """Return the variables that tell a container where its volumes are."""
        return {
            _variable(mount.volume): str(self._folder(container, self._volumes[mount.volume]))
            for mount in container.mounts
        }

    def make(self, container: ContainerTemplate, user: User | None, secrets: Secrets) -> None:
        """Make what the container mounts, as far as it is not there.

        Args:
            container: One of the group's.
            user: Who it runs as.
            secrets: The contents of secret volumes.

        Raises:
            RuntimeFailure: A host path or a secret is missing.
            OSError: The disk or the memory is full.
        """
        for mount in container.mounts:
            volume = self._volumes[mount.volume]
            folder = self._folder(container, volume)
            match volume.source:
                case EmptyDir():
                    folder.mkdir(parents=True, exist_ok=True)
                    folder.chmod(0o1777 if self._has_users() else 0o755)
                case HostPath(path=path):
                    if not Path(path).exists():
                        raise self._refusal(container, volume, f"there is no {path} on this host")
                case SecretFiles(files=wanted):
                    given = secrets.files(volume.name)
                    if missing := sorted(set(wanted) - set(given)):
                        why = f"no value was given for {missing[0]}"
                        raise self._refusal(container, volume, why)
                    self._vault.fill(folder, {name: given[name] for name in wanted}, user)

    def _folder(self, container: ContainerTemplate, volume: Volume) -> Path:
        match volume.source:
            case EmptyDir():
                return self._group / EMPTY_DIRS / volume.name
            case HostPath(path=path):
                return Path(path)
            case SecretFiles():
                return self._vault.folder(self._spec.group, container.name, volume.name)

    def _has_users(self) -> bool:
        """Whether containers of the group run as others than we do."""
        return os.geteuid() == 0 and any(c.user for c in self._spec.template.every_container())

    def _refusal(self, container: ContainerTemplate, volume: Volume, why: str) -> RuntimeFailure:
        return RuntimeFailure(
            f'embedded: cannot start group {self._spec.group}: container "{container.name}" mounts '
            f'volume "{volume.name}", but {why}. Nothing of the group runs, and traffic stays '
            "where it is. Correct the volume in the config, or put there what it names."
        )


def _variable(volume: str) -> str:
    return "VOLUME_" + re.sub(r"[^A-Z0-9]", "_", volume.upper())
