"""What a template asks of an engine, by the names of `BEHAVIOURS`. Pure: a template in, names out.

Said where an engine can't give it: in `status`, for each endpoint, and by `doctor`, for all of
them. What no template can ask for (processes that can't see each other, say) is never missed.
"""

from collections.abc import Iterator, Mapping

from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    GroupTemplate,
    HostPath,
    SecretFiles,
    Volume,
)
from trafficmgr.runtimes.contract import BEHAVIOURS

WAY_ROUND = frozenset({"shared_localhost", "mount_paths"})
"""Gaps whose reason names another way to the same: worth knowing, no reason to refuse a config."""


def needs(template: GroupTemplate) -> tuple[str, ...]:
    """Return what a template asks for, in the order of `BEHAVIOURS`."""
    asked = set(_of_group(template))
    for container in template.every_container():
        asked |= set(_of_container(container))
    for volume in template.volumes:
        asked |= set(_of_volume(volume))
    return tuple(behaviour for behaviour in BEHAVIOURS if behaviour in asked)


def unmet(template: GroupTemplate, gaps: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a template asks for and does not get, with why not."""
    return [(behaviour, gaps[behaviour]) for behaviour in needs(template) if behaviour in gaps]


def _of_group(template: GroupTemplate) -> Iterator[str]:
    if template.init_containers:
        yield "init_containers"
    if len(template.containers) > 1:
        yield "shared_localhost"
    if (template.resources.cpu, template.resources.memory_bytes) != (None, None):
        yield "group_limits"


def _of_container(container: ContainerTemplate) -> Iterator[str]:
    if container.user:
        yield "user"
    if container.env_from:
        yield "secret_env"
    if container.mounts:
        yield "mount_paths"
    if any(mount.is_read_only for mount in container.mounts):
        yield "read_only_mounts"
    if container.resources.cpu is not None:
        yield "cpu_limit"
    if container.resources.memory_bytes is not None:
        yield "memory_limit"
    probes = (container.readiness, container.liveness)
    checks = (*(probe.check for probe in probes if probe), container.pre_stop)
    if any(isinstance(check, ExecCheck) for check in checks):
        yield "exec"


def _of_volume(volume: Volume) -> Iterator[str]:
    match volume.source:
        case EmptyDir(size_bytes=size_bytes):
            yield "empty_dir"
            if size_bytes is not None:
                yield "empty_dir_size"
        case HostPath():
            yield "host_path"
        case SecretFiles():
            yield "secret_files"
