"""Endpoints with gates, hooks and smoke, in an installation that the tests of a file share.

    with housed(folder, registry) as house, house.site("fifth", gates={"compare": True}) as site:
        site.push("2", fails_every=5)

Each test has an endpoint of its own, with a host, images and rollouts of its own; its first
revision, "1", serves when it begins. What an image does beside serving is in its file `ways`.
Clients are a `Crowd`, and whoever is asked by checks and hooks is a `Desk`.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from demo.builder import Image, push
from demo.versions import image_of
from support.service_support import DEADLINE_S, Installation, is_alive, wait_for
from trafficmgr.cli.client import Client
from trafficmgr.cli.outcome import CliError
from trafficmgr.cli.place import Place

Data = dict[str, Any]

POLL_S = 0.05

ROLLOUT: Data = {
    "steps": [{"weight": 50, "hold": "300ms"}],
    "min_ready": "0s",
    "deadline": "60s",
    "watch": "0s",
    "keep_previous": "0s",
}
"""What a test does not say otherwise. The deadline is for machines that are busy."""

FAILURES_ONLY: Data = {"latency": False, "catch": "10%"}
"""How to compare where only failures are at stake: which answers are slow on a busy machine is
nobody's doing. A bad release of these tests fails a fifth."""

TASK = ["python3", "-I", "-S", "task.py"]
"""The command of hooks."""

# -- images ---------------------------------------------------------------------------------------

SHOP_PY = '''\
"""The demo's app, which also notes its start and fails in the ways that its image says."""

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, "")
import app

WAYS = json.loads(Path("ways").read_text())
VERSION = Path("version").read_text().strip()


def out_of_order():
    """Whether this turn is one that fails."""
    is_down = not WAYS["fails_while"] or Path(WAYS["fails_while"]).exists()
    return WAYS["fails_every"] and is_down and not next(turns) % WAYS["fails_every"]


def answer_to(head):
    if head.startswith(b"GET /healthz ") or not out_of_order():
        return plain(head)
    return (
        "HTTP/1.1 500 Internal Server Error\\r\\nContent-Length: 0\\r\\n"
        f"X-Version: {VERSION}\\r\\n\\r\\n"
    ).encode()


turns = itertools.count(1)
shop = app.from_image()
plain, shop.answer_to = shop.answer_to, answer_to
with open(os.environ["NOTES"], "a") as notes:
    notes.write(f"app {VERSION} {os.getpid()}\\n")
asyncio.run(app.main(shop))
'''

TASK_PY = '''\
"""The task of a hook: it notes that it runs, and ends as its image says."""

import json
import os
import sys
import time
from pathlib import Path

WAYS = json.loads(Path("ways").read_text())
VERSION = Path("version").read_text().strip()
NOTES = Path(os.environ["NOTES"])

with NOTES.open("a") as notes:
    notes.write(f"task {VERSION} {os.getpid()}\\n")
print(f"migrating to {VERSION}, and GREETING is {os.environ['GREETING']}", flush=True)
while WAYS["task"] == "waits" and not NOTES.with_name(f"go {VERSION}").exists():
    time.sleep(0.02)
if WAYS["task"] == "fails":
    sys.exit("there is no such column")
print("migrated")
'''

WAYS: Data = {"fails_every": 0, "fails_while": "", "task": "ends"}
"""fails_every: each so many answers there is a 500 (0: never); fails_while: only as long as there
is this file ("": always); task: how a hook's command goes: "ends", "fails", or "waits" to be let go
on."""


def image(version: str, **ways: object) -> Image:
    """Return an image that serves, and does what it is told."""
    assert ways.keys() <= WAYS.keys(), ways
    own = {"app/shop.py": SHOP_PY, "app/task.py": TASK_PY, "app/ways": json.dumps(WAYS | ways)}
    plain = image_of(version)
    files = {**plain.files, **{name: text.encode() for name, text in own.items()}}
    config = {**plain.config, "Cmd": ["python3", "-I", "-S", "shop.py"]}
    return replace(plain, files=files, config=config)


# -- the installation -----------------------------------------------------------------------------


@dataclass
class House(Installation):
    """An installation with as many endpoints as tests are under way: one at a time."""

    sites: "dict[str, Site]" = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """What asks its API without a process of its own."""
        return Client(Place(self.state_dir))

    def write_config(self, registry: str = "") -> None:
        """Write the usual config, with our endpoints in the place of its own."""
        super().write_config(registry)
        config = yaml.safe_load(self.config.read_text())
        shop = config["endpoints"].pop("shop")
        config["endpoints"] = {name: site.settings(shop) for name, site in self.sites.items()}
        self.config.write_text(yaml.safe_dump(config, sort_keys=False))

    def follow(self) -> None:
        """Go by the endpoints as they are now."""
        self.write_config()
        if self.process is None:
            self.start()
        else:
            text = self.config.read_text()
            self.client.post("/v1/apply", {"path": str(self.config), "text": text})

    def status(self) -> Data | None:
        """Return all that `status` shows; None while nobody answers."""
        with contextlib.suppress(CliError):
            found: Data = self.client.get("/v1/status")
            return found
        return None

    @contextmanager
    def site(
        self,
        name: str,
        *,
        replicas: int = 1,
        affinity: str = "none",
        ways: Data | None = None,
        **rollout: object,
    ) -> "Iterator[Site]":
        """Yield an endpoint whose first revision serves; the next endpoint takes its place.

        Args:
            name: Of the endpoint.
            replicas: How many groups it has.
            affinity: As in the config.
            ways: What its first revision does beside serving.
            rollout: Keys of `rollout`.
        """
        site = Site(self, name, replicas=replicas, affinity=affinity, rollout=rollout)
        self.sites[name] = site
        site.notes_file.parent.mkdir()
        site.push("1", **(ways or {}))
        self.follow()
        site.wait_until_serving("1")
        try:
            yield site
        finally:
            del self.sites[name]  # and from the config with the next one: it can't be without any

    def kill_controller(self) -> None:
        """Kill the controller, and wait until another one answers."""
        (controller,) = self.children("controller")
        os.kill(controller["pid"], signal.SIGKILL)
        wait_for("the controller to be gone", lambda: not is_alive(controller["pid"]))
        wait_for("another controller", self.status)


@contextmanager
def housed(folder: Path, registry: str) -> Iterator[House]:
    """Yield an installation that starts with its first endpoint; afterwards nothing of it runs."""
    house = House(folder=folder, registry=registry)
    try:
        yield house
    finally:
        house.end_everything()


# -- one endpoint ---------------------------------------------------------------------------------


@dataclass
class Site:
    """One endpoint, its releases, and what is known of them."""

    house: House
    name: str
    replicas: int
    affinity: str
    rollout: Data

    @property
    def host(self) -> str:
        """Its name for clients."""
        return f"{self.name}.apps.test"

    def settings(self, shop: Data) -> Data:
        """Return its part of the config, made from another endpoint's."""
        (container,) = shop["group"]["containers"]
        own = {
            "image": f"{self.house.registry}/{self.name}:stable",
            "env": {"NOTES": str(self.notes_file), "GREETING": f"hello from {self.name}"},
        }
        return {
            **shop,
            "hosts": [self.host],
            "affinity": self.affinity,
            "group": {"replicas": self.replicas, "containers": [{**container, **own}]},
            "update": {"policy": "digest", "every": "200ms"},
            "rollout": {**ROLLOUT, **self.rollout},
        }

    def change(self, **rollout: object) -> None:
        """Roll out what comes from now on in another way."""
        self.rollout = {**self.rollout, **rollout}
        self.house.follow()

    def push(self, version: str, **ways: object) -> None:
        """Release a version; `WAYS` says what it can be told."""
        url = f"http://{self.house.registry}"
        asyncio.run(push(url, self.name, "stable", image(version, **ways)))

    # -- what it says of itself -------------------------------------------------------------------

    def state(self) -> Data:
        """Return it as `status` shows it; waits for a controller that is being restarted."""
        status = wait_for("status", self.house.status)
        found: Data = next(one for one in status["endpoints"] if one["name"] == self.name)
        return found

    def under_way(self) -> Data:
        """Return the rollout that is under way; {} if none is."""
        return self.state()["rollout"] or {}

    def gate(self, name: str) -> Data:
        """Return what a gate says of the present step; {} if it says nothing."""
        gates = self.under_way().get("gates", [])
        return next((gate for gate in gates if gate["gate"] == name), {})

    def why(self) -> str:
        """Return what `why` says."""
        says = self.house.client.get(f"/v1/endpoints/{self.name}/why")["says"]
        return " ".join(says)

    def does(self, verb: str) -> str:
        """Type a verb for it; return what it answers."""
        answer = self.house.cli(verb, self.name)
        assert answer.returncode == 0, answer.stderr + self.house.log()
        return " ".join(answer.stdout.split())

    def events(self, kind: str) -> list[Data]:
        """Return what the journal has of a kind."""
        params: dict[str, str | int | None] = {"endpoint": self.name, "limit": 10000, "all": 1}
        found = self.house.client.get("/v1/events", params)
        return [one for one in found if one["kind"] == kind]

    def notes(self, version: str) -> list[tuple[str, int]]:
        """Return what processes of a version noted when they began: "task" or "app", and pid."""
        path = self.notes_file
        lines = path.read_text().splitlines() if path.exists() else []
        noted = [line.split() for line in lines]
        return [(what, int(pid)) for what, of, pid in noted if of == version]

    @property
    def notes_file(self) -> Path:
        """Where its processes note when they began."""
        return self.house.folder / f"{self.name}.notes" / "notes"

    def let_go_on(self, version: str) -> None:
        """Let a version's task come to its end."""
        self.notes_file.with_name(f"go {version}").touch()

    def rollout_id(self, number: int) -> str:
        """Return the name of its so many-th rollout."""
        return f"{self.name}-r{number}"

    # -- waiting ----------------------------------------------------------------------------------

    def wait_until_serving(self, version: str) -> None:
        """Wait until a version is all there is, and nothing is under way."""

        def serving() -> bool:
            state = self.state()
            groups = [(group["state"], group["ready"]) for group in state["groups"]]
            is_settled = (
                state["phase"] == "serving" and groups == [("started", True)] * self.replicas
            )
            return is_settled and self.get()[0] == version

        wait_for(f"{version} of {self.name} to serve", serving, every_s=POLL_S)

    def wait_for_step(self, number: int = 1) -> None:
        """Wait until the rollout that is under way is in this step."""
        wait_for("the step", lambda: self.under_way().get("step") == number, every_s=POLL_S)

    def wait_for_question(self) -> str:
        """Wait until an operator is asked something; return what."""
        found: str = wait_for(
            "a question", lambda: self.under_way().get("question"), every_s=POLL_S
        )
        return found

    def wait_for_end(self, number: int) -> None:
        """Wait until its so many-th rollout is over; its receipt may wait for more."""

        def is_over() -> bool:
            known = self.house.client.get("/v1/rollouts", {"endpoint": self.name})
            return any(one["id"] == self.rollout_id(number) and one["is_over"] for one in known)

        wait_for(f"rollout {number} to be over", is_over, every_s=POLL_S)

    def wait_for_receipt(self, number: int) -> Data:
        """Wait until the receipt of its so many-th rollout is final."""

        def final() -> Data | None:
            with contextlib.suppress(CliError):
                found: Data = self.house.client.get(f"/v1/receipts/{self.rollout_id(number)}")
                return found if found["is_final"] else None
            return None

        what = f"the final receipt of rollout {number}, and {self.state()['says']}"
        found: Data = wait_for(what, final, every_s=POLL_S)
        return found

    # -- clients ----------------------------------------------------------------------------------

    def get(self, path: str = "/", source: str = "") -> tuple[str, int]:
        """GET over a new connection, perhaps from another address; return version and status."""
        connection = http.client.HTTPConnection(
            "127.0.0.1",
            self.house.ports["http"],
            timeout=DEADLINE_S,
            source_address=(source, 0) if source else None,
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": self.host})
            response = connection.getresponse()
            response.read()
            return response.headers.get("X-Version", ""), response.status
