"""What must hold inside a group: names, ports, mounts, secrets, probes, limits.

The containers of a group share one network and its volumes, so most of it is about two of them
wanting the same, or naming what is not there. What only a runtime can't give is no mistake of the
file and not looked at here (`gaps`, runtimes/contract.py).
"""

import difflib
from collections.abc import Iterator, Sequence

from trafficmgr.config.document import Loc
from trafficmgr.config.shape import EndpointShape
from trafficmgr.config.shape_group import (
    ContainerShape,
    GroupShape,
    InitContainerShape,
    LivenessShape,
)
from trafficmgr.config.units import shown_size
from trafficmgr.config.wording import Fault

OURS = {
    "HOST": "it is the address to listen at",
    "PORT": "it is the port to listen at",
    "LOCALHOST": "it is the address at which the containers of a group reach each other",
}
"""Variables that every container gets, and what they say."""

Placed = tuple[Loc, str, InitContainerShape]
"""Where a container stands, what it is called, and the container."""


def faults_of(name: str, endpoint: EndpointShape, secrets: Sequence[str] | None) -> Iterator[Fault]:
    """Yield what does not fit together in an endpoint's group.

    Args:
        name: The endpoint's.
        endpoint: The endpoint.
        secrets: The names of those that are there; None if that can't be said.
    """
    loc: Loc = ("endpoints", name, "group")
    group = endpoint.group
    if not group.containers:
        text = f'group of endpoint "{name}" has no container'
        yield Fault((*loc, "containers"), text, "add one")
    yield from _names(loc, group)
    yield from _ports(loc, group)
    if group.containers:
        yield from _fronted(name, endpoint)
    for placed in _placed(loc, group):
        yield from _variables(placed)
        yield from _mounts(placed, group)
        yield from _limits(placed, group)
    for index, container in enumerate(group.containers):
        yield from _looks((*loc, "containers", index), container)
    if secrets is not None:
        yield from _secrets(loc, group, secrets)


def fronted_port(endpoint: EndpointShape) -> int:
    """Return the port that gets the traffic; 0 if that can't be said."""
    declared = _declared(endpoint.group)
    return endpoint.port or (declared[0] if len(declared) == 1 else 0)


def _placed(loc: Loc, group: GroupShape) -> Iterator[Placed]:
    """Yield every container, the init containers first, as they start."""
    for index, init in enumerate(group.init_containers):
        yield (*loc, "init_containers", index), f'init container "{init.name}"', init
    for index, container in enumerate(group.containers):
        yield (*loc, "containers", index), f'container "{container.name}"', container


def _declared(group: GroupShape) -> list[int]:
    ports = [port for container in group.containers for port in container.ports]
    return list(dict.fromkeys(ports))


# -- names and ports ------------------------------------------------------------------------------


def _names(loc: Loc, group: GroupShape) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for place, called, container in _placed(loc, group):
        if container.name in seen:
            text = f"{called} has the name of another container of its group"
            yield Fault((*place, "name"), text, "give it one of its own")
        seen.setdefault(container.name, called)
    volumes = [volume.name for volume in group.volumes]
    for index, name in enumerate(volumes):
        if name in volumes[:index]:
            text = f'volume "{name}" is there twice'
            yield Fault((*loc, "volumes", index, "name"), text, "give one of them another name")


def _ports(loc: Loc, group: GroupShape) -> Iterator[Fault]:
    """Yield ports that two containers want: they share one network."""
    owner: dict[int, str] = {}
    for place, container in enumerate(group.containers):
        for index, port in enumerate(container.ports):
            where: Loc = (*loc, "containers", place, "ports", index)
            if port in container.ports[:index]:
                text = f'port {port} of container "{container.name}" is there twice'
                yield Fault(where, text, "remove one of them")
            elif port in owner:
                text = f'port {port} is taken inside the group by container "{owner[port]}"'
                hint = 'one group can\'t have it twice; raise "replicas" for more copies'
                yield Fault(where, text, hint)
            owner.setdefault(port, container.name)


def _fronted(name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    declared = _declared(endpoint.group)
    containers = endpoint.group.containers
    first = next((i for i, container in enumerate(containers) if container.ports), 0)
    ports: Loc = ("endpoints", name, "group", "containers", first, "ports")
    if not declared:
        text = f'endpoint "{name}" has no port: none of its containers declares one'
        yield Fault(ports, text, "add ports: [8080] to the container that serves", on_key=True)
    elif endpoint.port is not None and endpoint.port not in declared:
        text = f'"port" in endpoint "{name}" is {endpoint.port}, which no container declares'
        yield Fault(("endpoints", name, "port"), text, f"write {_either(declared)}")
    elif not fronted_port(endpoint):
        text = f'endpoint "{name}" does not say which of its ports gets the traffic'
        yield Fault(ports, text, f"add port: {declared[0]} to the endpoint", on_key=True)


# -- what a container is given --------------------------------------------------------------------


def _variables(placed: Placed) -> Iterator[Fault]:
    loc, called, container = placed
    for variable, meaning in OURS.items():
        if variable in container.env:
            text = f'"{variable}" of {called} is set by trafficmgr itself'
            yield Fault((*loc, "env", variable), text, f"remove it: {meaning}", on_key=True)


def _mounts(placed: Placed, group: GroupShape) -> Iterator[Fault]:
    loc, called, container = placed
    volumes = [volume.name for volume in group.volumes]
    paths = [mount.path for mount in container.mounts]
    for index, mount in enumerate(container.mounts):
        if mount.volume not in volumes:
            text = f'{called} mounts a volume "{mount.volume}", which its group does not have'
            hint = _nearest(mount.volume, volumes) or "add it to volumes: of the group"
            yield Fault((*loc, "mounts", index, "volume"), text, hint)
        if mount.path in paths[:index]:
            text = f"{called} has two volumes at {mount.path}"
            yield Fault((*loc, "mounts", index, "path"), text, "give one of them another path")


def _limits(placed: Placed, group: GroupShape) -> Iterator[Fault]:
    """Yield limits of a container that its group's limit would never let it reach."""
    loc, called, container = placed
    own, whole = container.resources, group.resources
    if own.cpu is not None and whole.cpu is not None and own.cpu > whole.cpu:
        text = f"{called} may use more CPUs than its whole group, which has {whole.cpu:g}"
        yield Fault((*loc, "resources", "cpu"), text, f"write {whole.cpu:g} or less")
    if own.memory is not None and whole.memory is not None and own.memory > whole.memory:
        size = shown_size(whole.memory)
        text = f"{called} may use more memory than its whole group, which has {size}"
        yield Fault((*loc, "resources", "memory"), text, f"write {size} or less")


def _secrets(loc: Loc, group: GroupShape, known: Sequence[str]) -> Iterator[Fault]:
    for place, called, container in _placed(loc, group):
        for variable, value in container.env.items():
            secret = value.value_from and value.value_from.secret
            if secret and secret not in known:
                where: Loc = (*place, "env", variable, "value_from", "secret")
                yield _no_secret(where, f'"{variable}" of {called}', secret, known)
    for index, volume in enumerate(group.volumes):
        for file, secret in (volume.secret or {}).items():
            if secret not in known:
                where = (*loc, "volumes", index, "secret", file)
                yield _no_secret(where, f'"{file}" of volume "{volume.name}"', secret, known)


def _no_secret(loc: Loc, called: str, secret: str, known: Sequence[str]) -> Fault:
    text = f'{called} takes its value from secret "{secret}", which is not there'
    hint = f"add it at the top level: secrets: {{{secret}: {{file: /run/secrets/{secret}}}}}"
    return Fault(loc, text, _nearest(secret, known) or hint)


# -- what is looked at ----------------------------------------------------------------------------


def _looks(loc: Loc, container: ContainerShape) -> Iterator[Fault]:
    for key, probe in (("readiness", container.readiness), ("liveness", container.liveness)):
        if probe is not None:
            yield from _probe((*loc, key), f'"{key}" of container "{container.name}"', probe)
            for kind in ("http", "tcp"):
                yield from _looked_at((*loc, key, kind), container, getattr(probe, kind))
    if container.pre_stop is not None:
        yield from _looked_at((*loc, "pre_stop", "http"), container, container.pre_stop.http)


def _probe(loc: Loc, called: str, probe: LivenessShape) -> Iterator[Fault]:
    """Yield a fault unless it is exactly one of those that there are."""
    found = [kind for kind in ("http", "tcp", "exec") if getattr(probe, kind) is not None]
    if not found:
        hint = "add http: {path: /healthz}, tcp: {} or exec: {command: [./check]}"
        yield Fault(loc, f"{called} does not say what to look at", hint, on_key=True)
    elif len(found) > 1:
        text = f"{called} has both {' and '.join(found)}"
        yield Fault(loc, text, "leave one of them", on_key=True)


def _looked_at(loc: Loc, container: ContainerShape, check: object) -> Iterator[Fault]:
    """Yield a fault if the port to ask is not said and not plain."""
    if check is None or getattr(check, "port", None) is not None or len(container.ports) == 1:
        return
    text = f'"{loc[-2]}" of container "{container.name}" does not say which port to look at'
    port = container.ports[0] if container.ports else 8080
    yield Fault(loc, text, f"add port: {port}", on_key=True)


# -- words ----------------------------------------------------------------------------------------


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f'did you mean "{near[0]}"?' if near else ""


def _either(ports: list[int]) -> str:
    return " or ".join(map(str, ports))
