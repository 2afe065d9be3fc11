"""What the files of a group say about its state, in the words of the contract.

What an ended container means for its group is `contract.ending`'s to say. One thing is beyond every
restart policy: a container whose shim was killed, or that was there before the machine was
restarted. Nobody knows how it ended, so its group has.
"""

from collections.abc import Sequence

from trafficmgr.core.template import RestartPolicy
from trafficmgr.runtimes.contract import (
    ContainerState,
    ContainerStatus,
    GroupState,
    GroupStatus,
    ending,
)
from trafficmgr.runtimes.embedded.folders import ContainerFolder, ExitRecord, GroupFolder
from trafficmgr.runtimes.embedded.identity import Identity, is_alive

START_ERROR_CODE = 128
"""What Kubernetes gives to a container that could not be executed."""


class Seen:
    """A container at one moment: its status, and how it ended in a few words."""

    def __init__(self, container: ContainerFolder, *, is_init: bool) -> None:
        """Look at it.

        Args:
            container: Its folder.
            is_init: Whether it is an init container.
        """
        identity = container.identity()
        is_running = identity is not None and identity.is_of_this_boot and is_alive(identity.shim)
        record = container.exit()  # read after the look at the shim, which writes it as it ends
        self.is_decided = identity is not None or record is not None
        self.is_lost = record is None and identity is not None and not is_running
        self.at = record.at if record is not None else 0.0
        self.reason = _reason(identity, record) if record is not None or self.is_lost else ""
        self.status = _status(container.path.name, identity, record, is_running=is_running).but(
            is_init=is_init
        )


def group_status(folder: GroupFolder) -> GroupStatus | None:
    """Return the state of the group; None while its start is not finished."""
    record = folder.record()
    if record is None:
        return None
    inits = [Seen(one, is_init=True) for one in folder.init_containers()]
    mains = [Seen(one, is_init=False) for one in folder.containers()]
    lost = [one for one in mains if one.is_lost]
    if not lost and not all(one.is_decided for one in mains):
        return None
    statuses = tuple(one.status for one in mains)
    policy = record.spec.template.restart
    state = GroupState.exited if lost else ending(policy, statuses)
    return GroupStatus(
        group=folder.group,
        endpoint=record.spec.endpoint,
        state=state,
        reason=_group_reason(state, mains, [one for one in mains if _is_blamed(one, policy)]),
        pid=statuses[0].pid if state is GroupState.running else None,
        containers=tuple(one.status for one in inits) + statuses,
    )


def runs(folder: GroupFolder) -> bool:
    """Whether the group runs, or is about to."""
    status = group_status(folder)
    return folder.record() is not None if status is None else status.state is GroupState.running


def _status(
    name: str, identity: Identity | None, record: ExitRecord | None, *, is_running: bool
) -> ContainerStatus:
    started_at = identity.started_at if identity is not None else None
    if record is not None:
        return ContainerStatus(
            name=name,
            state=ContainerState.terminated,
            reason=_word(record),
            exit_code=_exit_code(record),
            started_at=started_at,
            finished_at=record.ended_at,
        )
    if identity is None:
        return ContainerStatus(name=name, state=ContainerState.waiting, reason="PodInitializing")
    if is_running:
        return ContainerStatus(
            name=name, state=ContainerState.running, pid=identity.app.pid, started_at=started_at
        )
    return ContainerStatus(
        name=name, state=ContainerState.terminated, reason="Error", started_at=started_at
    )


def _word(record: ExitRecord) -> str:
    if record.error:
        return "StartError"
    if record.is_oom:
        return "OOMKilled"
    return "Completed" if record.code == 0 else "Error"


def _exit_code(record: ExitRecord) -> int | None:
    if record.error:
        return START_ERROR_CODE
    return record.code if record.signal is None else 128 + record.signal


def _reason(identity: Identity | None, record: ExitRecord | None) -> str:
    if record is not None:
        return record.reason
    is_of_this_boot = identity is not None and identity.is_of_this_boot
    return "shim lost" if is_of_this_boot else "the machine was restarted"


def _is_blamed(one: Seen, policy: RestartPolicy) -> bool:
    """Whether it alone would have ended the group."""
    return one.is_lost or ending(policy, (one.status,)) is GroupState.exited


def _group_reason(state: GroupState, mains: Sequence[Seen], blamed: Sequence[Seen]) -> str:
    """Return how the group ended: by the first that ended against its policy, or all in order."""
    match state:
        case GroupState.running:
            return ""
        case GroupState.exited:
            return _told([min(blamed, key=lambda one: one.at)], is_alone=len(mains) == 1)
        case GroupState.completed:
            return _told(mains, is_alone=len(mains) == 1)


def _told(several: Sequence[Seen], *, is_alone: bool) -> str:
    if is_alone:
        return several[0].reason
    return ", ".join(f'container "{one.status.name}": {one.reason}' for one in several)
