"""docs/runtimes.md, made of what the runtimes themselves say that they can't give.

`python -m trafficmgr.cli.runtimes_page > docs/runtimes.md` writes it; a test holds it current.

Each runtime's page of gaps is asked for machines that have everything, and for machines that lack
something. What both have is "yes", what neither has is "no", and where they differ the reasons are
told. The machines are folders made for a moment, so that the page is the same wherever it is made;
`trafficmgr doctor` asks the real one.
"""

import errno
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from trafficmgr.runtimes.contract import BEHAVIOURS
from trafficmgr.runtimes.docker.cgroups import GroupLimits
from trafficmgr.runtimes.docker.engine import EngineFacts
from trafficmgr.runtimes.docker.gaps import gaps as docker_gaps
from trafficmgr.runtimes.embedded.cgroups import Cgroups, Hierarchy
from trafficmgr.runtimes.embedded.gaps import gaps_of as embedded_gaps
from trafficmgr.runtimes.embedded.vault import Vault

Gaps = Mapping[str, str]

COLUMNS = ("embedded", "docker", "Podman's socket")

HEAD = """\
# Runtimes: what they need, and what they give

Made by `python -m trafficmgr.cli.runtimes_page` from the runtimes' own pages of gaps
(`runtimes/*/gaps.py`); do not edit. `trafficmgr doctor` shows the table of behaviours for the
machine that it runs on, and whether the config gets all that it asks for; `trafficmgr status` says
it of each endpoint. What a runtime can't give is never left out in silence.

Podman's column is Docker's runtime at Podman's socket: `runtime: {kind: docker, host: ...}`.

"""

NEEDS = {
    "a group is": (
        "processes of this machine, on a loopback address of their own",
        "containers around a pause container, on a bridge of ours",
        "as on Docker",
    ),
    "it needs": (
        "Linux, Python 3.11",
        "Docker Engine 20.10 or newer, and its socket",
        "`podman system service`, and perhaps the settings [below](#podman)",
    ),
    "it needs root": (
        "for limits and for `user`, and for nothing else",
        "no, but whoever may use the socket is as good as root",
        "as on Docker",
    ),
    "an image has": (
        "what the host lacks: `python3` may be the host's own",
        "all that it needs",
        "all that it needs",
    ),
    "`address_pool`": (
        "127.77.0.0/16, or another part of 127.0.0.0/8",
        "10.213.0.0/16, or another private network that is free",
        "as on Docker",
    ),
}
"""What to know before one is chosen: a row for each, with a cell for each column."""

CHOICE = """
**How to choose.** For images that must not see each other, that bring their own libraries, or that
several people make: Docker. For programs of your own on a machine without Docker or root, and for
development: embedded. A config is the same for both but for `runtime` and `address_pool`, and
`HOST`, `PORT` and `LOCALHOST` in the environment let a program run on both unchanged.

**As a container itself** trafficmgr can drive Docker; [config/compose.yaml](../config/compose.yaml)
says how, and what is different then.

## Behaviours

"""

TAIL = """
*Depends* is: yes, but not where one of these sentences is true.

With every runtime it is the controller that probes, waits, counts and replaces a group that ended
([decision 10](decisions/0010-a-restart-is-a-new-group.md)), so no row is about that.

## Podman

Podman speaks Docker's API at a socket of its own (`podman system service --time=0`; then `host:
unix:///run/podman/podman.sock`). Its column says what that API promises: our tests run on Docker.
These differences were measured with Podman 4.3 and the client library that we use:

"""

PODMAN = {
    "`top` answers with broken JSON": "never ask for it",
    "`update` does not exist (404)": "never change a container: other limits are another revision",
    'health checks need systemd\'s timers, else they stay at "starting", without an error': (
        "run all probes ourselves, and don't look at an image's own HEALTHCHECK"
    ),
    "ports can be published by who is on another container's network (Docker: 400)": (
        "publish none: groups have addresses of their own"
    ),
    "removing a pause container answers 500 while others are on its network": (
        "remove the others first, with every engine"
    ),
    'a network named "bridge" is not what it is on Docker': "use none but our own",
}
"""What was measured to be different -> what we do about it."""

SETTINGS = """
All else that was tried worked: the version, pulling by digest, networks and joining them, limits,
log options, `exec`, lists by label, stats, logs, `kill`, `wait`, `rename`, `stop`.

As Debian 12 ships it, it did not start a container on a host with hybrid control groups and without
CAP_SYS_RESOURCE. It did with these in `containers.conf`: `default_ulimits` (the default needs that
capability), `runtime = "runc"` (crun refuses hybrid groups), `cgroup_manager = "cgroupfs"`,
`events_logger = "file"`. Bridges need Debian's `containernetworking-plugins`.
"""


def page() -> str:
    """Return the page."""
    parts = (
        HEAD,
        *_table(("", *COLUMNS), ((what, *cells) for what, cells in NEEDS.items())),
        CHOICE,
        *_table(("behaviour", *COLUMNS), _behaviours()),
        TAIL,
        *_table(("with Podman", "so we"), PODMAN.items()),
        SETTINGS,
    )
    return "\n".join(part.removesuffix("\n") for part in parts) + "\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    titles = list(head)
    for row in (titles, ["---"] * len(titles), *rows):
        yield f"| {' | '.join(row)} |"


def _behaviours() -> Iterator[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        columns = (embedded(Path(folder)), docker(Path(folder)), docker(Path(folder), "podman"))
    for behaviour, meaning in BEHAVIOURS.items():
        cells = (answer(machines, behaviour) for machines in columns)
        yield f"`{behaviour}`: {meaning}", *cells


def answer(machines: Sequence[Gaps], behaviour: str) -> str:
    """Return yes, no or depends for a behaviour, from the gaps of several machines."""
    reasons = list(dict.fromkeys(gaps[behaviour] for gaps in machines if behaviour in gaps))
    if not reasons:
        return "yes"
    is_nowhere = all(behaviour in gaps for gaps in machines)
    return ("*no*: " if is_nowhere else "*depends*: ") + " *or* ".join(reasons)


# -- machines that have everything, and machines that have not ------------------------------------


def embedded(folder: Path) -> list[Gaps]:
    """Return the gaps of process mode on a machine with everything, and on two with little."""
    bare = folder / "bare"
    nowhere = Vault(bare / "dev/shm", "trafficmgr").gap.replace(str(bare), "")
    closed = Hierarchy(
        root=f"{bare}/sys/fs/cgroup", version=2, controllers=("cpu", "memory", "pids")
    )
    refused = {
        name: why.replace(str(bare), "").replace(f" ({os.strerror(errno.ENOENT)})", "")
        for name, why in Cgroups("trafficmgr", found=[closed]).gaps.items()
    }
    return [
        embedded_gaps({}, secrets="", is_root=True),
        embedded_gaps(refused, secrets="", is_root=False),
        embedded_gaps(Cgroups("trafficmgr", found=()).gaps, secrets=nowhere, is_root=True),
    ]


def docker(folder: Path, kind: str = "docker") -> list[Gaps]:
    """Return the gaps of an engine on a machine with everything, and where one thing is missing."""
    bare, whole = (folder / kind / name / "sys/fs/cgroup" for name in ("bare", "whole"))
    for tree in ("memory", "cpu"):
        (whole / tree).mkdir(parents=True)
    elsewhere = GroupLimits("trafficmgr", root=whole)
    elsewhere.holds("of-nobody", 0)
    ours, not_ours = GroupLimits("trafficmgr", root=whole), GroupLimits("trafficmgr", root=bare)
    best = EngineFacts(api_version="1.41", cgroup_driver="cgroupfs", is_podman=kind == "podman")
    least = best.but(has_memory_limit=False, has_cpu_limit=False, has_process_limit=False)
    found = [
        docker_gaps(best, ours),
        docker_gaps(least, not_ours),
        docker_gaps(best.but(cgroup_driver="systemd"), ours),
        docker_gaps(best.but(is_rootless=True), ours),
        docker_gaps(best, elsewhere),
    ]
    where = str(bare.parents[2])
    return [{name: why.replace(where, "") for name, why in gaps.items()} for gaps in found]


if __name__ == "__main__":
    sys.stdout.write(page())
