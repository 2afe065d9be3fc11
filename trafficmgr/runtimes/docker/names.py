"""What our things on an engine are called, and how we know that they are ours.

Every name begins with `tm-INSTANCE-GROUP`, which is the pause container itself; what belongs to the
group has a dot and its own name after that. Groups and containers have no dots in their names, so
no two groups can mean the same name. Names are made from ids, never at random: a create whose
answer was lost is found again.

A thing is ours by its labels and by nothing else; things without them are never touched, and those
with a version that we don't know are left alone.
"""

import json
import re
from enum import StrEnum

import msgspec

from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure

INSTANCE = "trafficmgr.instance"
GROUP = "trafficmgr.group"
ENDPOINT = "trafficmgr.endpoint"
REVISION = "trafficmgr.revision"
CONTAINER = "trafficmgr.container"
ROLE = "trafficmgr.role"
SPEC = "trafficmgr.spec"
VERSION = "trafficmgr.version"

OUR_VERSION = "1"
"""Changes when the labels mean something else."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Role(StrEnum):
    """What a container of ours is for."""

    pause = "pause"
    init = "init"
    member = "member"


def check(spec: GroupSpec) -> None:
    """Refuse names that can't be part of a name on the engine.

    Raises:
        RuntimeFailure: There is one.
    """
    template = spec.template
    named = [one.name for one in template.every_container()]
    for name in (spec.group, *named, *(volume.name for volume in template.volumes)):
        if not _NAME.fullmatch(name):
            raise RuntimeFailure(
                f'docker: cannot start group "{spec.group}": the name "{name}" may only have '
                "letters, digits, dashes and underscores. Nothing was started. Give it another one."
            )


def is_name(group: str) -> bool:
    """Whether a group could have this name."""
    return _NAME.fullmatch(group) is not None


def stem(instance: str, group: str) -> str:
    """Return the name of a group's pause container."""
    return f"tm-{instance[:8]}-{group}"


def container_name(spec: GroupSpec, container: str) -> str:
    """Return the name of a container."""
    return f"{stem(spec.instance, spec.group)}.{container}"


def volume_name(spec: GroupSpec, volume: str) -> str:
    """Return the name of an empty_dir's volume."""
    return f"{stem(spec.instance, spec.group)}.{volume}"


def secret_name(spec: GroupSpec, container: str, volume: str) -> str:
    """Return the name of the volume with a container's own copy of a secret volume."""
    return f"{stem(spec.instance, spec.group)}.{container}.{volume}"


def network_name(instance: str, pool: str) -> str:
    """Return the name of the network on which groups of an instance have their addresses."""
    return f"tm-{instance[:8]}-{pool.replace('/', '-')}"


def labels(spec: GroupSpec) -> dict[str, str]:
    """Return the labels of everything that belongs to a group."""
    return {
        INSTANCE: spec.instance,
        GROUP: spec.group,
        ENDPOINT: spec.endpoint,
        REVISION: spec.revision,
        VERSION: OUR_VERSION,
    }


def container_labels(spec: GroupSpec, container: str, role: Role) -> dict[str, str]:
    """Return the labels of a container."""
    return labels(spec) | {CONTAINER: container, ROLE: role}


def filters(instance: str, group: str = "") -> dict[str, list[str]]:
    """Return what the engine shall filter by: all of an instance, or of one group."""
    wanted = [f"{INSTANCE}={instance}"]
    return {"label": [*wanted, f"{GROUP}={group}"] if group else wanted}


def as_json(value: object) -> str:
    """Return a value as the query of a request has it."""
    return json.dumps(value, separators=(",", ":"))


def spec_text(spec: GroupSpec) -> str:
    """Return a group's spec as its pause container's label has it."""
    return msgspec.json.encode(spec).decode()


def spec_of(text: str) -> GroupSpec:
    """Return the spec that a label holds.

    Raises:
        msgspec.MsgspecError: It holds none.
    """
    return msgspec.json.decode(text, type=GroupSpec)
