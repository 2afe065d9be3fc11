"""How a group comes up: its processes, what they need, init containers, then all the others.

Everything here can be done again over what an interrupted start has left.
"""

import os
from collections.abc import Sequence

from trafficmgr.core.template import ContainerTemplate
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure, Secrets
from trafficmgr.runtimes.embedded.cgroups import Cgroups
from trafficmgr.runtimes.embedded.folders import GroupFolder
from trafficmgr.runtimes.embedded.initial import run_to_its_end
from trafficmgr.runtimes.embedded.launch import launch
from trafficmgr.runtimes.embedded.process import OURS, ProcessSpec, Surroundings, process_spec
from trafficmgr.runtimes.embedded.threads import all_of, to_its_end
from trafficmgr.runtimes.embedded.trees import Trees
from trafficmgr.runtimes.embedded.users import User
from trafficmgr.runtimes.embedded.vault import Vault
from trafficmgr.runtimes.embedded.volumes import Volumes


class Start:
    """The start of one group."""

    def __init__(
        self,
        spec: GroupSpec,
        folder: GroupFolder,
        secrets: Secrets,
        *,
        cgroups: Cgroups,
        vault: Vault,
    ) -> None:
        """Look at what is given.

        Args:
            spec: The group.
            folder: Where it shall be.
            secrets: The values that its template names.
            cgroups: Where its limits are held.
            vault: Where its secrets are kept.

        Raises:
            RuntimeFailure: A secret is missing, or can be no environment variable.
        """
        self._spec = spec
        self._folder = folder
        self._secrets = secrets
        self._cgroups = cgroups
        self._volumes = Volumes(spec, folder.path, vault)
        self._templates = spec.template.every_container()
        self._secret_env = {one.name: self._variables(one) for one in self._templates}

    async def processes(self, trees: Trees) -> list[ProcessSpec]:
        """Return how each container shall run; pulls and unpacks what is missing.

        Raises:
            RuntimeFailure: One of them can't run.
            RuntimeUnknownError: The registry or the disk is away.
        """
        images = {image.container: image for image in self._spec.images}
        found = await all_of(trees.get(images[one.name]) for one in self._templates)
        return [
            process_spec(self._spec, one, tree, self._surroundings(one))
            for one, tree in zip(self._templates, found, strict=True)
        ]

    async def run(self, processes: Sequence[ProcessSpec]) -> None:
        """Write it down and start it; returns once every container was started.

        Raises:
            RuntimeFailure: A container could not be executed, or an init container failed.
            OSError: The disk, the memory or a control group did not take what we wrote.
        """
        await to_its_end(self._prepare, processes)
        for container in self._folder.init_containers():
            env = self._secret_env[container.path.name]
            await run_to_its_end(self._spec.group, container, env)
        await all_of(
            to_its_end(launch, self._spec.group, container, self._secret_env[container.path.name])
            for container in self._folder.containers()
        )

    def _surroundings(self, container: ContainerTemplate) -> Surroundings:
        return Surroundings(
            host=dict(os.environ),
            volumes=self._volumes.variables(container),
            cgroups=self._cgroups.folders(self._spec.group, container.name),
            secret_names=tuple(self._secret_env[container.name]),
        )

    def _prepare(self, processes: Sequence[ProcessSpec]) -> None:
        """Make what the containers need. What runs already, of an interrupted start, has it."""
        self._folder.create(self._spec, processes)
        for template, container in zip(
            self._templates, self._folder.every_container(), strict=True
        ):
            process = container.process()
            if process is None or container.has_started():
                continue
            whole = self._spec.template.resources
            self._cgroups.create(self._spec.group, template.name, whole, template.resources)
            self._volumes.make(template, _user(process), self._secrets)

    def _variables(self, container: ContainerTemplate) -> dict[str, str]:
        """Return the secrets among a container's variables."""
        given = self._secrets.env(container.name)
        for name in container.env_from:
            if name not in given:
                raise self._refusal(container, f"the variable {name} was given no value")
        for name, value in given.items():
            if "\0" in value:
                raise self._refusal(container, f"the value of the variable {name} has a NUL byte")
        return {name: value for name, value in given.items() if name not in OURS}

    def _refusal(self, container: ContainerTemplate, why: str) -> RuntimeFailure:
        return RuntimeFailure(
            f'embedded: cannot start group {self._spec.group}: container "{container.name}": '
            f"{why}. Nothing of the group runs, and traffic stays where it is. Correct "
            "`value_from` there, or the secret that it names."
        )


def _user(process: ProcessSpec) -> User | None:
    if process.uid is None or process.gid is None:
        return None
    return User(uid=process.uid, gid=process.gid)
