"""Everything that can be wanted, as imperatives. A command may be given again at any time.

`decide` is level-triggered: it names all that is still wanted, each time. Hands carry a command
out once, by its key, and answer with events.
"""

from trafficmgr.core.gating import HttpCall, Smoke
from trafficmgr.core.model import Group
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Table
from trafficmgr.core.template import Revision


class Command(Noun, tag_field="command", tag=True):
    """Something that is wanted now."""


class StartGroup(Command):
    """Let the group run: pull its images, start its processes at its address."""

    endpoint: str
    group: Group
    revision: Revision
    port: int

    @property
    def key(self) -> str:
        """What makes two of them the same."""
        return f"start {self.group.id}"


class StopGroup(Command):
    """End the group and everything it holds."""

    endpoint: str
    group: str

    @property
    def key(self) -> str:
        """What makes two of them the same."""
        return f"stop {self.group}"


class PublishTable(Command):
    """Bring the table to every worker: to its file first, then over the link."""

    table: Table

    @property
    def key(self) -> str:
        """What makes two of them the same."""
        return f"publish {self.table.endpoint} {self.table.generation}"


class RestartWorker(Command):
    """Kill and replace the worker of a slot: it did not acknowledge a table within the fence."""

    slot: int
    start_id: str

    @property
    def key(self) -> str:
        """What makes two of them the same."""
        return f"restart worker {self.start_id}"


class CallHook(Command):
    """Make the call of a hook: tell `HookStarted`, wait until that is journaled, then call once."""

    endpoint: str
    rollout: str
    hook: str
    call: HttpCall
    revision: str
    timeout_s: float

    @property
    def key(self) -> str:
        """What makes two of them the same."""
        return f"hook {self.rollout} {self.hook} {self.revision}"


class AskSmoke(Command):
    """Send the requests of one leg of the smoke test to the preview, by way of the workers.

    Each must be answered by `revision`, whoever was asked before.
    """

    endpoint: str
    rollout: str
    leg: int
    host: str
    revision: str
    smoke: Smoke

    @property
    def key(self) -> str:
        """What makes two of them the same."""
        return f"smoke {self.rollout} {self.leg}"


AnyCommand = StartGroup | StopGroup | PublishTable | RestartWorker | CallHook | AskSmoke
