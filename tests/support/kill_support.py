"""A whole installation that tells which points its controller passes, and what is left at the end.

`Victim` is the installation, `End` all that can be seen of it once it is at rest. What is done to
it: kill_scenarios.py. What its journal and its receipts must say: history_support.py.
"""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from demo.builder import File, push
from demo.versions import image_of
from support.client_support import boottime
from support.gate_clients import Desk
from support.service_support import HOST, Installation, wait_for
from trafficmgr.admin.address import reachable, socket_path

REPLICAS = 2
WORKERS = 2

STAGES = ("exit.json", "identity.json", "spec.json", "group.json")
"""Files of a group, the last to be written first (trafficmgr/runtimes/embedded/folders.py)."""

POLL_S = 0.05
"""How often is asked; each answer costs the controller some milliseconds, and there are four."""

RUN = """\
import sys
from trafficmgr.cli.main import main
from trafficmgr.supervisor import child
child.LONG_LIFE_S = 0.0
sys.argv[0] = "trafficmgr"
main()
"""
"""`trafficmgr run`, but as patient after the tenth kill in a row as after the first: the growing
wait before a controller is started again is right in life, and here would be most of the test."""

USUAL, QUICK = "update: {policy: digest, every: 1s}", "update: {policy: digest, every: 200ms}"
"""What the config of other tests says, and what is said here."""

ROLLOUT = "rollout: {"
"""Where what revisions have to prove is put in."""


class Processes(NamedTuple):
    """How many of each there are; nothing else may run."""

    supervisor: int
    controller: int
    worker: int
    shim: int
    app: int


ALL_THERE = Processes(1, 1, WORKERS, REPLICAS, REPLICAS)


@dataclass
class Victim(Installation):
    """An installation that reports its points, is quick, and asked over its socket."""

    publish: str = "groups"
    repository: str = "demo/web"
    fence: str = "5s"
    proofs: str = ""
    """What its revisions have to prove: keys of `rollout`, each with a comma behind it."""
    answered_at: list[float] = field(default_factory=list)
    """When `get` was answered, on CLOCK_BOOTTIME: it counts as a client, too."""

    # -- its life ---------------------------------------------------------------------------------

    def prove_by(self, desk: Desk) -> None:
        """From its start on, let each revision prove itself; checks and calls go to the desk."""
        self.publish, self.proofs = "proxy", proofs(self.tasks, desk.url)
        self.write_config()

    @property
    def tasks(self) -> Path:
        """Where the commands of hooks note that they ran."""
        return self.folder / "tasks"

    @property
    def faults(self) -> Path:
        """The folder that TRAFFICMGR_FAULT names."""
        return self.folder / "faults"

    def write_config(self, registry: str = "") -> None:
        """Write it as others do, then make it quick."""
        super().write_config(registry)
        text = self.config.read_text().replace("demo/web", self.repository)
        assert USUAL in text
        assert ROLLOUT in text
        text = text.replace(ROLLOUT, ROLLOUT + self.proofs)
        self.config.write_text(f"fence: {self.fence}\n{text.replace(USUAL, QUICK)}")

    def push_image(self, version: str, *, is_broken: bool = False) -> None:
        """Push an image that never was before; a broken one never becomes ready."""
        image = image_of(version)
        if is_broken:
            image = replace(image, files={**image.files, "app/broken": File(b"on purpose\n")})
        asyncio.run(push(f"http://{self.registry}", self.repository, "stable", image))

    def start(self) -> Self:
        """Start it with an environment of its own."""
        self.faults.mkdir(exist_ok=True)
        with (self.folder / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TRAFFICMGR_FAULT": str(self.faults)},
            )
        wait_for("the API to answer", self.status)
        return self

    def ask(self, path: str, *, method: str = "GET", body: str = "") -> Any:
        """Ask the admin API; None while no controller answers, or if it refuses."""
        connection = http.client.HTTPConnection("trafficmgr", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(30)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            with reachable(socket_path(self.state_dir)) as name:
                connection.sock.connect(name)
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            data = answer.read()
            return json.loads(data) if answer.status == 200 else None
        return None

    def get(self, path: str = "/", host: str = HOST) -> tuple[int, str]:
        """GET through the proxy; return status and version."""
        found = super().get(path, host)
        self.answered_at.append(boottime())
        return found

    def status(self) -> dict[str, Any] | None:
        """Return the endpoint as `status` shows it; None while nobody answers."""
        whole = self.ask("/v1/status")
        return (
            {**whole["endpoints"][0], "service": whole["service"]}
            if whole and whole["endpoints"]
            else None
        )

    def rollouts(self) -> list[dict[str, Any]]:
        """Return the rollouts that are kept, oldest first; waits for a controller that answers."""
        found: list[dict[str, Any]] = wait_for("rollouts", lambda: self.ask("/v1/rollouts"))
        return found

    def controller(self) -> int:
        """Return the pid of the controller that answers."""
        status: dict[str, Any] = wait_for("a controller", self.status)
        pid: int = status["service"]["pid"]
        return pid

    def end(self) -> None:
        """End it with its groups, and check that nothing is left."""
        wait_for("stop", lambda: self.ask("/v1/stop", method="POST", body='{"groups": true}'))
        assert self.process is not None
        assert self.process.wait(60) == 0, self.log()
        self.process = None
        assert (self.pids(), self.folders()) == ([], set()), f"{self.pids()} {self.folders()}"

    # -- faults -----------------------------------------------------------------------------------

    def arm(self, *faults: str) -> None:
        """From now on report points, and kill at these, one after the other."""
        (self.faults / "passed").write_text("")
        fresh = self.faults / "armed.new"
        fresh.write_text("".join(f"{fault}\n" for fault in faults))
        fresh.rename(self.faults / "armed")

    def disarm(self) -> list[str]:
        """Let it live; return the points passed since it was armed, and where it was killed."""
        (self.faults / "armed").unlink()
        return self.passed()

    def passed(self) -> list[str]:
        """Return the points passed since it was armed."""
        return (self.faults / "passed").read_text().splitlines()

    # -- what there is ----------------------------------------------------------------------------

    def folders(self) -> set[str]:
        """Return the groups that have a folder."""
        return {path.name for path in (self.state_dir / "groups").iterdir()}

    def how_far(self, known: set[str]) -> str:
        """Say what the newest file is of each group that was not known: "spec.json,group.json"."""
        found = []
        for group in sorted(self.folders() - known):
            names = {path.name for path in (self.state_dir / "groups" / group).rglob("*.json")}
            found.append(next((name for name in STAGES if name in names), "folder"))
        return ",".join(found) or "nothing"

    def processes(self) -> dict[str, frozenset[int]]:
        """Return the pids of everything of ours that runs, by what it is."""
        found: dict[str, set[int]] = {role: set() for role in Processes._fields}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[role_of([os.fsdecode(word) for word in argv])].add(pid)
        return {role: frozenset(pids) for role, pids in found.items()}

    def is_held_by(self, pid: int, client_port: int) -> bool:
        """Whether a process has accepted the connection that a client has from this port."""
        ends = f":{self.ports['http']:04X}", f":{client_port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        names = {f"socket:[{r[9]}]" for r in rows if (r[1][-5:], r[2][-5:]) == ends}
        return any(str(link.readlink()) in names for link in Path(f"/proc/{pid}/fd").iterdir())


def role_of(argv: list[str]) -> str:
    """Return what a process of ours is."""
    if "trafficmgr.service" in argv:
        return "controller"
    if "trafficmgr.dataplane.worker" in argv:
        return "worker"
    if any(word.endswith("shim.py") for word in argv):
        return "shim"
    return "supervisor" if "run" in argv else "app"


# -- how it ends ----------------------------------------------------------------------------------


class End(NamedTuple):
    """Everything that a scenario leaves behind. Revisions go by the order of their rollouts."""

    phase: str
    alarm: str
    roles: tuple[str, str, str]
    weights: tuple[tuple[str, int], ...]
    groups: tuple[tuple[str, str, bool], ...]
    outcomes: tuple[tuple[str, str], ...]
    newly_quarantined: tuple[str, ...]
    serves: str
    processes: Processes
    are_apps_the_same: bool
    new_workers: int
    strays: tuple[str, ...]


class Before(NamedTuple):
    """What there was before a scenario."""

    stable: str
    version: str
    rollouts: frozenset[str]
    quarantined: frozenset[str]
    processes: dict[str, frozenset[int]]


def before(house: Victim) -> Before:
    """Look at an installation at rest."""
    status: dict[str, Any] = wait_for("status", house.status)
    return Before(
        stable=status["stable"],
        version=house.get()[1],
        rollouts=frozenset(one["id"] for one in house.rollouts()),
        quarantined=frozenset(one["revision"] for one in status["quarantined"]),
        processes=house.processes(),
    )


def is_at_rest(status: dict[str, Any] | None) -> bool:
    """Whether nothing is under way any more."""
    if status is None or status["phase"] != "serving":
        return False
    states = [(group["state"], group["ready"]) for group in status["groups"]]
    return states == [("started", True)] * REPLICAS and is_everybody_there(status)


def is_everybody_there(status: dict[str, Any] | None) -> bool:
    """Whether every worker has said hello to this controller."""
    return status is not None and all(slot["is_present"] for slot in status["service"]["slots"])


def is_settled(house: Victim) -> bool:
    """Whether each rollout has a receipt to which nothing more will be added."""
    receipts = house.ask("/v1/receipts?limit=1000")
    return bool(receipts) and all(receipt["is_final"] for receipt in receipts)


def wait_for_end(house: Victim, past: Before, rollouts: int, *, resumes: bool = False) -> bool:
    """Wait until so many more rollouts are over and nothing is under way.

    With `resumes` an operator answers each question with `resume`; returns whether there was any.
    """
    questions = set()

    def is_over() -> bool:
        status = house.status()
        rollout = (status or {}).get("rollout") or {}
        if resumes and rollout.get("question"):
            questions.add(rollout["question"])
            house.ask("/v1/endpoints/shop/resume", method="POST")
        if not is_at_rest(status):
            return False
        known = house.ask("/v1/rollouts") or []
        new = [one for one in known if one["id"] not in past.rollouts]
        return len(new) >= rollouts and all(one["is_over"] for one in new)

    wait_for(f"{rollouts} rollouts to be over", is_over, every_s=POLL_S)
    return bool(questions)


def end(house: Victim, past: Before) -> End:
    """Look at what a scenario left; its names are the same each time that it is done."""
    status: dict[str, Any] = wait_for("status", house.status)
    new = [one for one in house.rollouts() if one["id"] not in past.rollouts]
    names = {past.stable: "old", None: ""}
    for one in new:
        names.setdefault(one["to"], f"new {len(names) - 1}")
    there = house.processes()
    version = house.get()[1]
    addresses = {group["address"] for group in status["groups"]}
    assert len(addresses) == REPLICAS
    strays = house.folders() ^ {group["id"] for group in status["groups"]}
    return End(
        phase=status["phase"],
        alarm=status["alarm"],
        roles=(names[status["stable"]], names[status["candidate"]], names[status["previous"]]),
        weights=tuple((names[one["revision"]], one["weight_pct"]) for one in status["weights"]),
        groups=tuple((names[g["revision"]], g["state"], g["ready"]) for g in status["groups"]),
        outcomes=tuple((names[one["to"]], one["outcome"]) for one in new),
        newly_quarantined=tuple(
            names[one["revision"]]
            for one in status["quarantined"]
            if one["revision"] not in past.quarantined
        ),
        serves="old" if version == past.version else version.lstrip("0123456789"),
        processes=Processes(*(len(there[role]) for role in Processes._fields)),
        are_apps_the_same=there["app"] == past.processes["app"],
        new_workers=len(there["worker"] - past.processes["worker"]),
        strays=tuple(sorted(strays)),
    )


# -- what a revision has to prove -----------------------------------------------------------------

TASK = """\
from pathlib import Path
with Path({tasks!r}).open("a") as tasks:
    tasks.write(Path("version").read_text())
"""
"""What a hook's command does: it notes its version, as often as it is run."""


def proofs(tasks: Path, url: str) -> str:
    """Return keys of `rollout`: of each kind of proof something, and all of it quick."""
    command = ["python3", "-I", "-S", "-c", TASK.format(tasks=str(tasks))]
    budget = {"name": "budget", "http": {"url": f"{url}/budget"}, "every": "1s"}
    keys = {
        "gates": {"max_error_rate": 0.5, "min_requests": 10, "checks": [budget]},
        "hooks": {
            "before": [{"name": "migrate", "command": command}],
            "gate": [{"name": "approve", "http": {"url": f"{url}/approve"}}],
        },
        "smoke": {"rehearse": True},
    }
    return "".join(f"{key}: {json.dumps(value)}, " for key, value in keys.items())


class Hooked(NamedTuple):
    """How often the hooks of a revision were done, and whether an operator was asked about them."""

    tasks: int
    calls: int
    is_asked: bool

    @property
    def is_right(self) -> bool:
        """Whether each was done once, or perhaps not at all if an operator was asked."""
        return {self.tasks, self.calls} <= ({0, 1} if self.is_asked else {1})


def hooks_of(house: Victim, desk: Desk, version: str, *, is_asked: bool) -> Hooked:
    """Return how often the hooks of the version that was rolled out last were done."""
    rollout = house.rollouts()[-1]["id"]
    calls = [call for call in desk.calls if call.path == "/approve"]
    return Hooked(
        tasks=house.tasks.read_text().splitlines().count(version),
        calls=sum(call.body["rollout"] == rollout for call in calls),
        is_asked=is_asked,
    )
