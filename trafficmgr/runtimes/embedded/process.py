"""Process mode: how an image's command becomes a plain process of this host.

* The command is the template's, else the image's entrypoint and cmd.
* Its first word is looked up in the image's tree, symlinks resolved inside it: an absolute name as
  it stands, one with a slash from the working directory, a bare one along the image's PATH. What
  the tree does not have is taken from the host: the same absolute name, or along the host's PATH.
* The working directory is the template's, else the image's, inside the tree.
* The environment is the image's, then the template's `env`, then its secrets (which come to the
  shim by another way and are never written down), then HOST, PORT, LOCALHOST and the folders of its
  volumes (`volumes.py`). PATH, HOME and LANG are the host's where nobody says otherwise. Nothing
  else of our own environment is passed on.
* It runs as the template's `user` if we are root, else as we do; the image's USER is not looked at
  (`users.py`). Its limits are those that control groups can hold here (`cgroups.py`).

Process mode is no isolation (`gaps.py` has it in sentences). The process sees the host's files,
network and processes, and can change the tree that all groups of the image share. It may listen
anywhere; that it listens at HOST:PORT is its own good will. Interpreters and shared libraries, and
every absolute name in its arguments, are the host's. A group's containers share its address, at
which they meet as LOCALHOST, and the volumes that they mount.
"""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping

from trafficmgr.core.noun import Noun
from trafficmgr.core.template import ContainerTemplate
from trafficmgr.runtimes.contract import GroupSpec, RuntimeFailure
from trafficmgr.runtimes.embedded import inside
from trafficmgr.runtimes.embedded.trees import Tree
from trafficmgr.runtimes.embedded.users import UnknownUserError, User, resolve

LOG_BYTES = 10 * 1024 * 1024
"""Of each of a container's two log files (ACI keeps 4 MB, Docker without options everything)."""
MARK = "TRAFFICMGR_CONTAINER"
"""Names the container to its processes, and its processes to us should the shim be killed."""
OURS = {"HOST", "PORT", "LOCALHOST", MARK}
"""Variables that nobody else may set."""
_FROM_HOST = {"PATH": os.defpath, "HOME": "/", "LANG": "C.UTF-8"}


class ProcessSpec(Noun):
    """The content of spec.json: all that the shim must know, except for secrets.

    `secret_names` are the variables that come through its stdin. `uid` None is our own user.
    `cgroups` are the folders that the process belongs into. `rootfs` is the tree in which `exec`
    looks commands up.
    """

    path: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    grace_s: float
    stop_signal: int
    log_bytes: int
    secret_names: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None
    cgroups: tuple[str, ...] = ()
    rootfs: str = ""

    @property
    def mark(self) -> str:
        """The entry that all its descendants have in their environment."""
        return f"{MARK}={self.env[MARK]}"


class Surroundings(Noun):
    """What a container finds on this host.

    `host` is the host's environment, of which only PATH, HOME and LANG are looked at; `volumes` is
    variable -> folder; the others are as in `ProcessSpec`.
    """

    host: dict[str, str]
    volumes: dict[str, str] = {}
    cgroups: tuple[str, ...] = ()
    secret_names: tuple[str, ...] = ()


def process_spec(
    spec: GroupSpec, container: ContainerTemplate, tree: Tree, around: Surroundings
) -> ProcessSpec:
    """Return how the container runs as a process of this host.

    Args:
        spec: The group.
        container: One of its containers.
        tree: The container's image, unpacked.
        around: What it finds here.

    Raises:
        RuntimeFailure: There is no command, or it, the working directory or the user does not
            exist.
    """
    argv = container.command or tree.config.entrypoint + tree.config.cmd
    if not argv:
        raise _refusal(
            spec,
            container,
            "neither its image nor the config names a command",
            f'Give it one: `command: ["..."]` in the config of endpoint {spec.endpoint}.',
        )
    user = _user(spec, container, tree)
    env = _environment(spec, container, tree, around, user)
    cwd = _working_directory(spec, container, tree)
    path = executable(argv[0], tree.rootfs, cwd, env["PATH"], around.host)
    if path is None:
        raise _refusal(
            spec,
            container,
            f'there is no executable "{argv[0]}", neither in the image nor on this host',
            "Correct the command, or install it here (process mode runs on the host's files).",
        )
    return ProcessSpec(
        path=path,
        argv=argv,
        env=env,
        cwd=cwd,
        grace_s=container.stop_grace_s,
        stop_signal=_stop_signal(spec, container, tree),
        log_bytes=LOG_BYTES,
        secret_names=around.secret_names,
        uid=user.uid if user is not None else None,
        gid=user.gid if user is not None else None,
        cgroups=around.cgroups,
        rootfs=tree.rootfs,
    )


def _refusal(
    spec: GroupSpec, container: ContainerTemplate, why: str, advice: str
) -> RuntimeFailure:
    return RuntimeFailure(
        f'embedded: cannot start group {spec.group}: container "{container.name}": {why}. '
        f"Nothing of the group runs, and traffic stays where it is. {advice}"
    )


def _user(spec: GroupSpec, container: ContainerTemplate, tree: Tree) -> User | None:
    try:
        return resolve(container.user, tree.rootfs)
    except UnknownUserError as error:
        raise _refusal(
            spec,
            container,
            f"{error} is known neither in its image nor on this host",
            "Correct `user` in the config, or write a number.",
        ) from None


def _environment(
    spec: GroupSpec,
    container: ContainerTemplate,
    tree: Tree,
    around: Surroundings,
    user: User | None,
) -> dict[str, str]:
    fallback = {key: around.host.get(key, default) for key, default in _FROM_HOST.items()}
    home = {"HOME": user.home} if user is not None else {}
    ours = {
        "HOST": spec.address,
        "PORT": str(_port(spec, container)),
        "LOCALHOST": spec.address,
        MARK: f"{spec.instance}/{spec.group}/{container.name}/{secrets.token_hex(8)}",
    }
    return fallback | home | tree.config.env | container.env | around.volumes | ours


def _port(spec: GroupSpec, container: ContainerTemplate) -> int:
    """Return the fronted port, or a sidecar's own first one."""
    if not container.ports or spec.port in container.ports:
        return spec.port
    return container.ports[0]


def _working_directory(spec: GroupSpec, container: ContainerTemplate, tree: Tree) -> str:
    name = container.working_dir or tree.config.working_dir or "/"
    path = inside.look_up(tree.rootfs, name)
    if path is None or not os.path.isdir(path):  # noqa: PTH112  strings all the way to the shim
        raise _refusal(
            spec,
            container,
            f'its image has no directory "{name}" to work in',
            "Correct `working_dir` in the config, or WORKDIR in the image.",
        )
    return path


def executable(word: str, rootfs: str, cwd: str, path: str, host: Mapping[str, str]) -> str | None:
    """Return the file that a command's first word means; None if there is none.

    Args:
        word: A name, with or without slashes.
        rootfs: The image's tree.
        cwd: The working directory, below it.
        path: The container's PATH.
        host: The host's environment, for what the tree does not have.
    """
    for name in _names_in_tree(word, cwd.removeprefix(rootfs), path):
        found = inside.look_up(rootfs, name)
        if found is not None and os.path.isfile(found) and os.access(found, os.X_OK):  # noqa: PTH113  as above
            return found
    if "/" in word and not word.startswith("/"):
        return None  # the host has no such directory
    return shutil.which(word, path=host.get("PATH", os.defpath))


def _names_in_tree(word: str, cwd: str, path: str) -> Iterator[str]:
    if "/" in word:
        yield word if word.startswith("/") else f"{cwd}/{word}"
        return
    for directory in filter(None, path.split(":")):
        yield f"{directory}/{word}"


def _stop_signal(spec: GroupSpec, container: ContainerTemplate, tree: Tree) -> int:
    """Return the number of the image's StopSignal: "SIGQUIT", "QUIT" or "3"."""
    name = tree.config.stop_signal or "SIGTERM"
    if name.isdigit() and 0 < int(name) < signal.NSIG:
        return int(name)
    try:
        return signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"]
    except KeyError:
        raise _refusal(
            spec,
            container,
            f'its image wants to be stopped by the unknown signal "{name}"',
            "Correct STOPSIGNAL in the image.",
        ) from None
