"""Bringing a group up, so that it may be interrupted anywhere.

    network, images (nothing to do once they are there)
    create the pause container, and with it the volumes
    start it; meanwhile create the others and look whether their commands exist
    fill the volumes
    init containers one after another, each to exit code 0
    start all members at once

Every name is made from the group's id. A start that was broken off, by a crash of ours or of the
engine's, is undone by the next start of the same group, which then begins anew: nobody was told
that the group runs, and init containers may run twice (as Kubernetes has it).
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from trafficmgr.core.template import ContainerTemplate, Resources
from trafficmgr.runtimes.contract import (
    GroupSpec,
    RuntimeFailure,
    RuntimeUnknownError,
    Secrets,
)
from trafficmgr.runtimes.docker import shape
from trafficmgr.runtimes.docker.cgroups import GroupLimits
from trafficmgr.runtimes.docker.commands import Commands
from trafficmgr.runtimes.docker.conversation import ask
from trafficmgr.runtimes.docker.engine import Engine
from trafficmgr.runtimes.docker.errors import CONFLICT, NOT_FOUND, EngineRefusal
from trafficmgr.runtimes.docker.filling import fill
from trafficmgr.runtimes.docker.images import Images, PinnedImage
from trafficmgr.runtimes.docker.logs import last_lines
from trafficmgr.runtimes.docker.names import GROUP, INSTANCE, Role, container_name, stem
from trafficmgr.runtimes.docker.network import GroupNetwork
from trafficmgr.runtimes.docker.pausing import Pauses
from trafficmgr.runtimes.docker.seen import exit_text

_LAST_LINES = 5
"""Of an init container that failed, in the error's text."""

_Result = TypeVar("_Result")


class _Group(NamedTuple):
    """What is known of a group before anything of it is made."""

    spec: GroupSpec
    images: Mapping[str, PinnedImage]
    wrapped: frozenset[str]
    cgroup_parent: str


class Starter:
    """Starts groups on one engine."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: GroupLimits,
        network: GroupNetwork,
        images: Images,
        pauses: Pauses,
    ) -> None:
        """Know what a group is made of."""
        self._engine = engine
        self._limits = limits
        self._network = network
        self._images = images
        self._pauses = pauses
        self._commands = Commands(engine)

    async def bring_up(self, spec: GroupSpec, secrets: Secrets) -> None:
        """Start a group of which nothing is there.

        Raises:
            RuntimeFailure: It can't be started; what is there of it is the caller's to remove.
            RuntimeUnknownError: The engine or a registry can't be asked.
        """
        with self._images.in_use(spec.images):
            await self._bring_up(spec, secrets)

    async def _bring_up(self, spec: GroupSpec, secrets: Secrets) -> None:
        containers = spec.template.every_container()
        digests = {image.container: image for image in spec.images}
        found = await together(
            self._images.get(spec.endpoint, digests[one.name]) for one in containers
        )
        group = _Group(
            spec=spec,
            images=dict(zip((one.name for one in containers), found, strict=True)),
            wrapped=frozenset(one.name for one in containers if secrets.env(one.name)),
            cgroup_parent=await self._cgroup_parent(spec),
        )
        async with self._network.held() as network:
            pause = await self._pause(group, network)
            _, *created = await together(
                [
                    self._start(spec, "", pause),
                    *(self._create(group, one, pause) for one in containers),
                ]
            )
        identities = {one.name: str(made) for one, made in zip(containers, created, strict=True)}
        if group.cgroup_parent:
            await self._look_at_limits(spec, pause)
        await fill(
            self._engine,
            spec,
            secrets,
            pause=pause,
            created=identities,
            images=group.images,
            wrapped=group.wrapped,
        )
        for one in spec.template.init_containers:
            await self._run_init(spec, one, identities[one.name])
        await together(
            self._start(spec, one.name, identities[one.name]) for one in spec.template.containers
        )

    async def _cgroup_parent(self, spec: GroupSpec) -> str:
        """Return the cgroup for the group's own limits, made; "" if it has none, or can't here."""
        resources = spec.template.resources
        if resources == Resources() or self._limits.gap(await self._engine.known()):
            return ""
        try:
            await asyncio.to_thread(self._limits.make, spec.group, resources)
        except OSError as error:
            raise failure(
                spec,
                "",
                f"the limits of the group can't be set: {error}",
                f"Correct `resources` of the group in the config of endpoint {spec.endpoint}.",
            ) from error
        return self._limits.parent(spec.group)

    async def _look_at_limits(self, spec: GroupSpec, pause: str) -> None:
        """See that the engine's cgroups are the ones that were limited."""
        found = await self._engine.call(lambda client: client.inspect_container(pause))
        self._limits.holds(spec.group, found["State"]["Pid"])

    # -- creating ---------------------------------------------------------------------------------

    async def _pause(self, group: _Group, network: str) -> str:
        """Create the pause container, and with it the group's volumes."""
        spec = group.spec
        pause = await self._pauses.get()
        config = shape.pause_config(
            spec,
            image=pause.image,
            command=pause.command,
            wrapped=group.wrapped,
            network=network,
            cgroup_parent=group.cgroup_parent,
        )
        try:
            return await self._created(spec, "", stem(spec.instance, spec.group), config)
        except EngineRefusal as refusal:
            if refusal.status == NOT_FOUND:
                self._pauses.forget()
                raise _gone(spec, refusal) from refusal
            raise refusal_of(spec, "", refusal) from refusal

    async def _create(self, group: _Group, container: ContainerTemplate, pause: str) -> str:
        spec, image = group.spec, group.images[container.name]
        is_init = container in spec.template.init_containers
        config = shape.member_config(
            spec,
            container,
            image=image,
            role=Role.init if is_init else Role.member,
            is_wrapped=container.name in group.wrapped,
            pause=pause,
            cgroup_parent=group.cgroup_parent,
        )
        name = container_name(spec, container.name)
        try:
            identity = await self._created(spec, container.name, name, config)
        except EngineRefusal as refusal:
            if refusal.status == NOT_FOUND:
                self._images.forget()
                raise _gone(spec, refusal) from refusal
            raise refusal_of(spec, container.name, refusal) from refusal
        await self._commands.check(spec, container, image, identity)
        return identity

    async def _created(
        self, spec: GroupSpec, container: str, name: str, config: Mapping[str, Any]
    ) -> str:
        """Create a container; one of this name that is there may be from a create of ours."""
        try:
            made = await self._engine.call(
                lambda client: client.create_container_from_config(dict(config), name)  # type: ignore[no-untyped-call]  # its stubs have no types here
            )
            return str(made["Id"])
        except EngineRefusal as refusal:
            if refusal.status != CONFLICT or "already in use" not in refusal.said:
                raise
            found = await self._engine.call(lambda client: client.inspect_container(name))
            labels = found["Config"]["Labels"] or {}
            if (labels.get(INSTANCE), labels.get(GROUP)) != (spec.instance, spec.group):
                raise failure(
                    spec,
                    container,
                    f'a container of somebody else has the name "{name}"',
                    "Rename or remove that one.",
                ) from refusal
            return str(found["Id"])

    # -- starting ---------------------------------------------------------------------------------

    async def _start(self, spec: GroupSpec, container: str, identity: str) -> None:
        try:
            await self._engine.call(lambda client: client.start(identity))
        except EngineRefusal as refusal:
            if not container and refusal.status == NOT_FOUND:
                self._network.forget()
                raise _gone(spec, refusal) from refusal
            raise refusal_of(spec, container, refusal) from refusal

    async def _run_init(self, spec: GroupSpec, container: ContainerTemplate, identity: str) -> None:
        await self._start(spec, container.name, identity)
        await ask(self._engine, "POST", f"/containers/{identity}/wait", answers_within_s=None)
        found = await self._engine.call(lambda client: client.inspect_container(identity))
        if found["State"]["ExitCode"] == 0:
            return
        how = "OOMKilled" if found["State"]["OOMKilled"] else exit_text(found["State"]["ExitCode"])
        lines = await last_lines(self._engine, identity, _LAST_LINES)
        said = f'; its last words: "{lines}"' if lines else ""
        raise failure(
            spec,
            container.name,
            f"it is an init container and ended with {how}{said}",
            f"Correct it; `trafficmgr logs {spec.group} -c {container.name}` has all that it said.",
        )


def failure(spec: GroupSpec, container: str, why: str, advice: str) -> RuntimeFailure:
    """Return the error of a start that can't succeed."""
    which = f'container "{container}"' if container else "its pause container"
    return RuntimeFailure(
        f"docker: cannot start group {spec.group}: {which}: {why}. Nothing of the group runs, and "
        f"traffic stays where it is. {advice}"
    )


def refusal_of(spec: GroupSpec, container: str, refusal: EngineRefusal) -> RuntimeFailure:
    """Return the error of a start that the engine has refused."""
    said = refusal.said.removesuffix(": unknown").rpartition("unable to start container process: ")
    advice = f"Correct the group in the config of endpoint {spec.endpoint}."
    if "address already in use" in refusal.said.lower():
        advice = (
            f"Something else on the network of groups has {spec.address}; free it, or choose "
            "another address_pool."
        )
    return failure(spec, container, said[2], advice)


def _gone(spec: GroupSpec, refusal: EngineRefusal) -> RuntimeUnknownError:
    """Return the error of a start that found gone what was there a moment ago."""
    return RuntimeUnknownError(
        f"docker: cannot start group {spec.group} now: {refusal.said}. Somebody has removed it "
        "from the engine. Traffic stays where it is, and it is tried again."
    )


async def together(several: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """Wait for all of them, then raise the first error: what is unknown before what failed.

    Not a TaskGroup: that would break off the others, whose work the engine does anyway.
    """
    results = await asyncio.gather(*several, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda one: not isinstance(one, RuntimeUnknownError)):
        raise error
    return [result for result in results if not isinstance(result, BaseException)]
