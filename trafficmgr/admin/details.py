"""`show`: a group with everything in it, as plain data. Pure.

Secrets are shown by reference only: a template has no values of them, and nothing here asks for
one. Other variables may hold some all the same, so their values are hidden, as in a plan. The
states are the runtime's if it knows the group, else what follows from its phase.
"""

from datetime import UTC, datetime
from typing import Any

from trafficmgr.admin.views import group_state
from trafficmgr.config.units import shown
from trafficmgr.controller.plan import HIDDEN
from trafficmgr.core import hooks
from trafficmgr.core.model import Group, GroupPhase
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    FromEnv,
    FromFile,
    FromSecret,
    HostPath,
    HttpCheck,
    ImageDigest,
    Probe,
    Resources,
    Revision,
    SecretFiles,
    TcpCheck,
    ValueFrom,
    Volume,
    short,
)
from trafficmgr.runtimes.contract import ContainerState, ContainerStatus, GroupStatus

Plain = dict[str, Any]

UNKNOWN = "Unknown"
"""The state of a container while the engine can't be asked."""

REASONS = {
    GroupPhase.waiting: "BackOff",
    GroupPhase.wanted: "ContainerCreating",
    GroupPhase.started: "ContainerUnknown",
    GroupPhase.ended: "Error",
    GroupPhase.completed: "Completed",
    GroupPhase.stopping: "Terminating",
}
"""Phase of a group that the runtime does not know -> the reason for its containers' state."""

OVER = frozenset({GroupPhase.ended, GroupPhase.completed})


def group(
    one: Group, state: EndpointState, status: GroupStatus | None, *, is_engine_away: bool
) -> Plain:
    """Return a group as `show` has it, except for its events.

    Args:
        one: The group.
        state: Its endpoint.
        status: The group as the runtime sees it; None if it does not know it.
        is_engine_away: The runtime could not be asked.
    """
    revision = _runs(one, state)
    template = revision.template
    seen = {status.name: status for status in (status.containers if status else ())}
    images = {image.container: image for image in revision.images}
    init = {container.name for container in template.init_containers}
    return {
        "id": one.id,
        "revision": short(one.revision),
        "state": group_state(one),
        "ready": one.is_ready,
        "hook": one.hook or None,
        "note": one.note,
        "address": one.address,
        "port": state.port_of(one.revision),
        "restart": template.restart.value,
        "restarts": one.restarts,
        "limits": _limits(template.resources),
        "containers": [
            {
                "name": container.name,
                "is_init": container.name in init,
                "restarts": one.restarts,
                **_seen(seen.get(container.name), one, is_engine_away=is_engine_away),
                **_container(container, images.get(container.name)),
            }
            for container in template.every_container()
        ],
        "volumes": [_volume(volume) for volume in template.volumes],
    }


def _runs(one: Group, state: EndpointState) -> Revision:
    """Return what a group runs: its whole revision, or the one container of a hook's task."""
    rollout = state.rollout
    known = () if rollout is None else rollout.settings.hooks
    is_ours = rollout is not None and rollout.revision == one.revision
    if is_ours and any(hook.name == one.hook for hook in known):
        return hooks.task_of(state, one)
    return state.revisions[one.revision]  # a task of a rollout that is over is being stopped


# -- what it does ---------------------------------------------------------------------------------


def _seen(status: ContainerStatus | None, one: Group, *, is_engine_away: bool) -> Plain:
    """Return a container's state, in the words that users know."""
    if status is None:
        waits = ContainerState.terminated if one.phase in OVER else ContainerState.waiting
        return {
            "state": UNKNOWN if is_engine_away else waits.value,
            "reason": "" if is_engine_away else REASONS[one.phase],
            "exit_code": None,
            "started": None,
            "finished": None,
        }
    return {
        "state": status.state.value,
        "reason": status.reason,
        "exit_code": status.exit_code,
        "started": _wall(status.started_at),
        "finished": _wall(status.finished_at),
    }


def _wall(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


# -- what it is -----------------------------------------------------------------------------------


def _container(container: ContainerTemplate, image: ImageDigest | None) -> Plain:
    env = dict.fromkeys(container.env, HIDDEN)
    env |= {name: _reference(source) for name, source in container.env_from.items()}
    return {
        "image": f"{container.image}:{container.tag}",
        "digest": "" if image is None else image.digest,
        "command": list(container.command),
        "user": container.user,
        "ports": list(container.ports),
        "limits": _limits(container.resources),
        "env": env,
        "mounts": [
            {"path": mount.path, "volume": mount.volume, "is_read_only": mount.is_read_only}
            for mount in container.mounts
        ],
        "readiness": _probe(container.readiness, has_rise=True),
        "liveness": _probe(container.liveness, has_rise=False),
        "pre_stop": "" if container.pre_stop is None else _check(container.pre_stop),
        "stop_grace_s": container.stop_grace_s,
    }


def _reference(source: ValueFrom) -> str:
    match source:
        case FromSecret(name=name):
            return f"(secret {name})"
        case FromFile(path=path):
            return f"(file {path})"
        case FromEnv(variable=variable):
            return f"(variable {variable} of the controller)"


def _limits(resources: Resources) -> Plain:
    return {"cpu": resources.cpu, "memory_bytes": resources.memory_bytes}


def _volume(volume: Volume) -> Plain:
    match volume.source:
        case EmptyDir(size_bytes=size_bytes):
            return {"name": volume.name, "kind": "empty_dir", "size_bytes": size_bytes}
        case HostPath(path=path):
            return {"name": volume.name, "kind": "host_path", "path": path}
        case SecretFiles(files=files):
            return {"name": volume.name, "kind": "secret", "files": files}


def _probe(probe: Probe | None, *, has_rise: bool) -> str:
    """Return a probe in a line, or ""."""
    if probe is None:
        return ""
    times = [
        f"every {shown(probe.every_s)}",
        f"timeout {shown(probe.timeout_s)}",
        *([f"rise {probe.rise}"] if has_rise else []),
        f"fall {probe.fall}",
        *([f"after {shown(probe.initial_delay_s)}"] if probe.initial_delay_s else []),
    ]
    return f"{_check(probe.check)}, {', '.join(times)}"


def _check(check: HttpCheck | TcpCheck | ExecCheck) -> str:
    match check:
        case HttpCheck(port=port, path=path):
            return f"http :{port}{path}"
        case TcpCheck(port=port):
            return f"tcp :{port}"
        case ExecCheck(command=command):
            return f"exec {' '.join(command)}"
