"""From the template to what the engine is told to create.

The pause container owns what is the group's: network, address, hostname, and the volumes, so that
they live as long as the group. The others join its network. No container is ever restarted by the
engine, each has an init that reaps and passes signals on, a limit of processes, and bounded logs.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from trafficmgr.core.template import ContainerTemplate, EmptyDir, HostPath, Resources
from trafficmgr.runtimes.contract import GroupSpec
from trafficmgr.runtimes.docker.images import PinnedImage
from trafficmgr.runtimes.docker.names import (
    SPEC,
    Role,
    container_labels,
    labels,
    secret_name,
    spec_text,
    volume_name,
)

PROCESS_LIMIT = 1024
"""Of one container. Kubernetes leaves it to the node (1024 is usual), the engine has none; a JVM
with some hundred threads fits, a fork bomb ends before the machine feels it."""

LOG_FILE_BYTES = 10 * 1024 * 1024
"""Of each of a container's two log files, as the embedded runtime has them; without options the
engine keeps everything for ever."""

VOLUMES = "/trafficmgr/volumes"
SECRETS = "/trafficmgr/secrets"
"""Where the pause container has the volumes, so that they can be filled before members start."""

OWN_FOLDER = "/.trafficmgr"
"""Where a container with secrets in its environment finds the program that puts them there."""
ENV_VOLUME = "_env"
"""The name of that folder's volume; a volume of the user's can't begin with an underscore."""

_SECRET_BYTES = 4 * 1024 * 1024
_CPU_UNIT = 1_000_000_000
_HOSTNAME_CHARS = 63


def argv(container: ContainerTemplate, image: PinnedImage) -> tuple[str, ...]:
    """Return the command that a container runs."""
    return container.command or image.entrypoint + image.cmd


# -- the pause container --------------------------------------------------------------------------


def pause_config(
    spec: GroupSpec,
    *,
    image: str,
    command: tuple[str, ...],
    wrapped: Collection[str],
    network: str,
    cgroup_parent: str,
) -> dict[str, Any]:
    """Return what the pause container is made of.

    Args:
        spec: The group. It is written into a label, so that adoption needs nothing else.
        image: The pause image.
        command: What to run; empty is what the image says.
        wrapped: The containers with secrets in their environment.
        network: The network's name.
        cgroup_parent: The cgroup of the whole group; "" is the engine's own choice.
    """
    address = {"IPAMConfig": {"IPv4Address": spec.address}}
    return {
        "Image": image,
        **({"Entrypoint": list(command)} if command else {}),
        "Hostname": spec.group[:_HOSTNAME_CHARS].rstrip("-_."),
        "Labels": container_labels(spec, "", Role.pause) | {SPEC: spec_text(spec)},
        "HostConfig": _common(cgroup_parent)
        | {
            "NetworkMode": network,
            "Mounts": _empty_dirs(spec) + _secret_volumes(spec, wrapped),
        },
        "NetworkingConfig": {"EndpointsConfig": {network: address}},
    }


def _empty_dirs(spec: GroupSpec) -> list[dict[str, Any]]:
    return [
        _made(spec, volume_name(spec, volume.name), f"{VOLUMES}/{volume.name}", options)
        for volume in spec.template.volumes
        if isinstance(volume.source, EmptyDir)
        for options in (_in_memory(volume.source.size_bytes) if volume.source.size_bytes else {},)
    ]


def _secret_volumes(spec: GroupSpec, wrapped: Collection[str]) -> list[dict[str, Any]]:
    return [
        _made(
            spec,
            secret_name(spec, container, volume),
            f"{SECRETS}/{container}/{volume}",
            _in_memory(_SECRET_BYTES),
        )
        for container, volume in secret_copies(spec, wrapped)
    ]


def secret_copies(spec: GroupSpec, wrapped: Collection[str]) -> list[tuple[str, str]]:
    """Return (container, volume): who needs a copy of which secret volume.

    Each container has its own, because each may run as another user, who alone may read it.

    Args:
        spec: The group.
        wrapped: The containers with secrets in their environment.
    """
    sources = {volume.name: volume.source for volume in spec.template.volumes}
    copies = []
    for container in spec.template.every_container():
        mounted = dict.fromkeys(mount.volume for mount in container.mounts)
        copies += [
            (container.name, name)
            for name in mounted
            if not isinstance(sources[name], EmptyDir | HostPath)
        ]
        if container.name in wrapped:
            copies.append((container.name, ENV_VOLUME))
    return copies


def _made(spec: GroupSpec, name: str, target: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Return a mount whose volume the engine makes with the pause container."""
    return _volume(name, target) | {
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": labels(spec),
            "DriverConfig": {"Name": "local", "Options": dict(options)},
        }
    }


def _in_memory(size_bytes: int) -> dict[str, str]:
    return {"type": "tmpfs", "device": "tmpfs", "o": f"size={size_bytes},mode=0755"}


# -- the others -----------------------------------------------------------------------------------


def member_config(
    spec: GroupSpec,
    container: ContainerTemplate,
    *,
    image: PinnedImage,
    role: Role,
    is_wrapped: bool,
    pause: str,
    cgroup_parent: str,
) -> dict[str, Any]:
    """Return what an init container or a member is made of.

    Args:
        spec: The group.
        container: Which one.
        image: Its image.
        role: Which of the two.
        is_wrapped: Whether it has secrets in its environment.
        pause: The pause container, by id or name.
        cgroup_parent: As for the pause container.
    """
    config: dict[str, Any] = {
        "Image": image.name,
        "Env": [f"{key}={value}" for key, value in environment(spec, container).items()],
        "Labels": container_labels(spec, container.name, role),
        "HostConfig": _common(cgroup_parent)
        | _limits(container.resources)
        | {
            "NetworkMode": f"container:{pause}",
            "Init": True,
            "Mounts": _mounts(spec, container)
            + ([_own_folder(spec, container)] if is_wrapped else []),
        },
    }
    if container.user:
        config["User"] = container.user
    if container.working_dir:
        config["WorkingDir"] = container.working_dir
    if is_wrapped:
        config["Entrypoint"] = wrapped(argv(container, image))
        config["Cmd"] = []
    elif container.command:
        config["Entrypoint"] = list(container.command)
        config["Cmd"] = []
    return config


def wrapped(command: tuple[str, ...]) -> list[str]:
    """Return a command that has the secrets in its environment."""
    return [f"{OWN_FOLDER}/init", "run", f"{OWN_FOLDER}/env", "--", *command]


def environment(spec: GroupSpec, container: ContainerTemplate) -> dict[str, str]:
    """Return what is not secret of a container's environment, without the image's."""
    own_port = not container.ports or spec.port in container.ports
    port = spec.port if own_port else container.ports[0]
    return container.env | {"HOST": "0.0.0.0", "PORT": str(port), "LOCALHOST": "127.0.0.1"}  # noqa: S104  inside the group's own network


def _mounts(spec: GroupSpec, container: ContainerTemplate) -> list[dict[str, Any]]:
    sources = {volume.name: volume.source for volume in spec.template.volumes}
    mounts = []
    for mount in container.mounts:
        match sources[mount.volume]:
            case EmptyDir():
                mounted = _volume(volume_name(spec, mount.volume), mount.path)
            case HostPath(path=path):
                mounted = {"Type": "bind", "Source": path, "Target": mount.path}
            case _:
                name = secret_name(spec, container.name, mount.volume)
                mounted = _volume(name, mount.path) | {"ReadOnly": True}
        mounts.append(mounted | ({"ReadOnly": True} if mount.is_read_only else {}))
    return mounts


def _own_folder(spec: GroupSpec, container: ContainerTemplate) -> dict[str, Any]:
    name = secret_name(spec, container.name, ENV_VOLUME)
    return _volume(name, OWN_FOLDER) | {"ReadOnly": True}


def _volume(name: str, target: str) -> dict[str, Any]:
    return {
        "Type": "volume",
        "Source": name,
        "Target": target,
        "VolumeOptions": {"NoCopy": True},
    }


def _limits(resources: Resources) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if resources.cpu is not None:
        limits["NanoCpus"] = math.ceil(resources.cpu * _CPU_UNIT)
    if resources.memory_bytes is not None:
        limits["Memory"] = limits["MemorySwap"] = resources.memory_bytes  # no swap on top of it
    return limits


def _common(cgroup_parent: str) -> dict[str, Any]:
    return {
        "RestartPolicy": {"Name": "no"},
        "PidsLimit": PROCESS_LIMIT,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(LOG_FILE_BYTES), "max-file": "2"},
        },
        **({"CgroupParent": cgroup_parent} if cgroup_parent else {}),
    }
