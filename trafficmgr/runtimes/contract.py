"""What every runtime promises (DESIGN 8). tests/runtimes/conformance.py is this page as tests.

* Everything is idempotent by group id: starting a running group, or stopping one that is gone,
  changes nothing and raises nothing.
* A group is never changed in place, and neither it nor a container of it is ever restarted by the
  runtime: the controller is the only restart owner, and a restart is a new group
  (docs/decisions/0010). What a container's end means for its group is `ending`'s to say.
* A group that has ended or completed stays listed until `stop`.
* Groups outlive the controller. A new controller adopts them by recorded identity.
* Init containers run one after another, each to exit code 0, before the others start together.
  `stop` ends the containers in reverse order: pre_stop, SIGTERM, the grace, SIGKILL.
* What a runtime can't give is in its `gaps`, by the name of the behaviour, and never silent.
"""

from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from typing import Protocol

from trafficmgr.core.errors import TrafficmgrError
from trafficmgr.core.noun import Noun
from trafficmgr.core.template import GroupTemplate, ImageDigest, RestartPolicy

# -- errors ---------------------------------------------------------------------------------------


class RuntimeFailure(TrafficmgrError):  # noqa: N818  the name is DESIGN's (STYLE.md, Errors)
    """The runtime could not do what was wanted; the text says what and why."""


class RuntimeUnknownError(RuntimeFailure):
    """The engine can't be asked right now. Unknown is not failed (promise 12)."""


# -- what is started ------------------------------------------------------------------------------


class GroupSpec(Noun):
    """All that a runtime must know to run a group, except for secrets.

    `address` is an IPv4 address of our allocator, `port` the one that is fronted. `instance`
    names this installation, so that two of them on one engine never touch each other's groups.
    """

    group: str
    instance: str
    endpoint: str
    revision: str
    address: str
    port: int
    template: GroupTemplate
    images: tuple[ImageDigest, ...]


class Secrets:
    """The values that a group's template only names, read when it starts.

    No noun on purpose: it is never stored and can't be encoded, and its repr says nothing. A
    runtime keeps the values in memory-backed places only, and passes them to nobody else.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, Mapping[str, str]] | None = None,
        files: Mapping[str, Mapping[str, bytes]] | None = None,
    ) -> None:
        """Hold the values.

        Args:
            env: Container -> variable -> value, for `value_from`.
            files: Volume -> file name -> content, for secret volumes.
        """
        self._env = dict(env or {})
        self._files = dict(files or {})

    def env(self, container: str) -> Mapping[str, str]:
        """Return a container's variables."""
        return self._env.get(container, {})

    def files(self, volume: str) -> Mapping[str, bytes]:
        """Return the files of a secret volume."""
        return self._files.get(volume, {})


NO_SECRETS = Secrets()


# -- what is seen ---------------------------------------------------------------------------------


class GroupState(StrEnum):
    """What the runtime sees of a group."""

    running = "running"
    exited = "exited"
    completed = "completed"


class ContainerState(StrEnum):
    """What the runtime sees of a container; the words are those that users know."""

    waiting = "Waiting"
    running = "Running"
    terminated = "Terminated"


class ContainerStatus(Noun):
    """A container as the runtime sees it.

    `reason` is a word for the state as cloud container instances have it (Completed, Error,
    OOMKilled, StartError, PodInitializing); `exit_code` is 128 + N after signal N. Times are
    seconds since the epoch, for display.
    """

    name: str
    state: ContainerState
    is_init: bool = False
    reason: str = ""
    exit_code: int | None = None
    pid: int | None = None
    started_at: float | None = None
    finished_at: float | None = None


class GroupStatus(Noun):
    """A group as the runtime sees it.

    `reason` says how it ended, in a few words; `pid` is that of its first container.
    """

    group: str
    endpoint: str
    state: GroupState
    reason: str = ""
    pid: int | None = None
    containers: tuple[ContainerStatus, ...] = ()


class ContainerStats(Noun):
    """What a container has used; None is not known. Network bytes are those of its whole group."""

    name: str
    cpu_s: float | None = None
    memory_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


class ImagesRemoved(Noun):
    """What `keep_images` has removed: how many images, and their bytes (None: not known)."""

    images: int = 0
    size_bytes: int | None = None


def ending(policy: RestartPolicy, containers: tuple[ContainerStatus, ...]) -> GroupState:
    """Return what the state of its containers means for a group; init containers don't count.

    One that ended against the policy ends the group; so the controller replaces it.
    """
    codes = [one.exit_code for one in containers if one.state is ContainerState.terminated]
    wants_another = {
        RestartPolicy.always: bool(codes),
        RestartPolicy.on_failure: any(code != 0 for code in codes),
        RestartPolicy.never: False,
    }
    if wants_another[policy]:
        return GroupState.exited
    is_over = bool(containers) and len(codes) == len(containers)
    return GroupState.completed if is_over else GroupState.running


# -- talking to what runs -------------------------------------------------------------------------


class LogQuery(Noun):
    """Which lines of a group's logs are wanted.

    Args:
        container: Only of this one; "" is all of them, each line with a `[name] ` before it if
            there are several.
        tail: Only the last so many lines; None is all.
        since: Only lines written at or after this many seconds since the epoch; None is all.
        has_timestamps: Whether each line begins with the time at which it was written (RFC 3339,
            UTC, nanoseconds) and a space.
        is_followed: Whether to go on until the group has ended.
    """

    container: str = ""
    tail: int | None = None
    since: float | None = None
    has_timestamps: bool = False
    is_followed: bool = False


EVERYTHING = LogQuery()


class ExecSession(Protocol):
    """A command that runs inside a container. Close it, whatever happens."""

    async def send(self, data: bytes) -> None:
        """Write to its standard input; b"" closes it."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal; without one nothing happens."""
        ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (1 or 2, bytes) as it writes; with a terminal everything is 1. Ends with it."""
        ...

    async def exit_code(self) -> int:
        """Wait for its end and return its exit code, 128 + N after signal N."""
        ...

    async def close(self) -> None:
        """Let go of it. A command that still runs is ended where the engine can, else left."""
        ...


# -- the contract ---------------------------------------------------------------------------------


class Runtime(Protocol):
    """The one contract of all engines.

    `gaps` is behaviour (of `BEHAVIOURS`) -> why this runtime can't give it here.
    """

    @property
    def gaps(self) -> Mapping[str, str]:
        """Return behaviour -> why not here."""
        ...

    async def start(self, spec: GroupSpec, secrets: Secrets = NO_SECRETS) -> str:
        """Start the group and return the address it can be dialled at.

        It returns once the init containers are done and every container was started.

        Raises:
            RuntimeFailure: It could not be started; nothing of it is left running.
            RuntimeUnknownError: The engine could not be asked; try again.
        """
        ...

    async def stop(self, group: str) -> None:
        """End the group and forget it, except for its logs; returns when it is gone."""
        ...

    async def list(self) -> tuple[GroupStatus, ...]:
        """Return every group of this instance that the runtime knows.

        Raises:
            RuntimeUnknownError: The engine can't be asked.
        """
        ...

    def watch(self) -> AsyncIterator[GroupStatus]:
        """Yield the status of a group when it ends or completes by itself; never ends by itself."""
        ...

    def logs(self, group: str, query: LogQuery = EVERYTHING) -> AsyncIterator[bytes]:
        """Yield what the group's containers wrote, oldest first, in chunks of whole lines.

        Raises:
            RuntimeFailure: There is no such group or container, or nothing of it is kept.
        """
        ...

    async def exec(
        self, group: str, container: str, command: tuple[str, ...], *, has_tty: bool = False
    ) -> ExecSession:
        """Run a command inside a container ("" is the first), with its environment.

        Raises:
            RuntimeFailure: There is no such container, it does not run, or has no such command.
        """
        ...

    async def stats(self, group: str) -> tuple[ContainerStats, ...]:
        """Return what the group's containers have used since they started.

        Raises:
            RuntimeFailure: There is no such group.
        """
        ...

    def keep_logs(self, seconds: float) -> None:
        """Keep the logs of groups that are gone for so long from now on."""
        ...

    async def keep_images(self, digests: frozenset[str]) -> ImagesRemoved:
        """Remove every image of ours but these, and those that groups are made of.

        A start that is under way keeps its images, too. What is removed is pulled anew by the
        next start that needs it.

        Args:
            digests: The platform digests of all images that may be needed again.

        Raises:
            RuntimeUnknownError: The engine can't be asked.
            RuntimeFailure: It refuses; some may be gone already.
        """
        ...

    async def close(self) -> None:
        """Let go of everything held in this process. The groups run on."""
        ...


BEHAVIOURS: dict[str, str] = {
    "isolated_network": "Each group has its own network; ports that are not listed stay in it.",
    "shared_localhost": "The containers of a group meet on localhost.",
    "isolated_files": "A container sees its image's files and its volumes only.",
    "isolated_processes": "A container can't see the processes of other groups.",
    "init_containers": "Init containers run in order, each to its end, before the others.",
    "empty_dir": "empty_dir volumes, shared by the containers that mount them.",
    "empty_dir_size": "The size limit of an empty_dir is enforced.",
    "host_path": "host_path volumes.",
    "read_only_mounts": "A read-only mount can't be written to.",
    "mount_paths": "Volumes appear at the path that the config says.",
    "secret_files": "Secrets as files in memory, mode 0400.",
    "secret_env": "Secrets in the environment, shown by nobody else.",
    "user": "`user` is who the container runs as.",
    "cpu_limit": "CPU limits of a container are enforced.",
    "memory_limit": "Memory limits of a container are enforced; OOMKilled says so.",
    "group_limits": "Limits of a whole group are enforced.",
    "process_limit": "A fork bomb in a container ends there.",
    "exec": "`exec` runs a command inside a container, with a terminal or without.",
    "stats_network": "`stats` knows the bytes that a group has sent and received.",
    "logs_timestamps": "Logs know when each line was written.",
}
"""What an engine may not be able to give: its name and what it means."""
