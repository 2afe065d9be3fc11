"""The state of an endpoint: the left fold of everything that was observed about it.

One owner writes it (`controller.loop`, by way of `core.rollout.evolve`); everyone else gets this
frozen value. It is stored whole with each event, so that a start needs no replay.
"""

from trafficmgr.core.model import (
    Backoff,
    EndpointSettings,
    Group,
    GroupPhase,
    Rollout,
    Slot,
)
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Table
from trafficmgr.core.template import Revision


class EndpointState(Noun, kw_only=True):
    """All that is decided and remembered about one endpoint; the left fold of its events.

    `newest` is the revision that the registry showed last. `stable` carries the endpoint,
    `candidate` is being rolled out, `previous` is kept warm until `previous_at` ("" is none).
    `last_good` was stable before; a rollback goes there, warm or not ("": nowhere).
    `rollout` is the one under way, or the last one. `history` holds finished ones, oldest first.
    `ignored` came while `on_newer: ignore` held. `scaled_to` is what an operator said instead of
    the configured number of replicas. `is_admitted` is whether the fleet has room for one more
    rollout. `is_engine_away` is that nothing can be known of groups now but what probes say.
    `is_held`: an operator lets requests wait. `hooks_begun` is, by revision, which hooks were begun
    and whether each succeeded.
    """

    name: str
    boot_id: str
    settings: EndpointSettings
    table: Table
    is_removed: bool = False
    newest: str = ""
    stable: str = ""
    candidate: str = ""
    previous: str = ""
    previous_until: float = 0.0
    last_good: str = ""
    ignored: str = ""
    scaled_to: int | None = None
    is_held: bool = False
    is_admitted: bool = True
    is_engine_away: bool = False
    revisions: dict[str, Revision] = {}
    quarantined: dict[str, str] = {}
    backoff: dict[str, Backoff] = {}
    rollout: Rollout | None = None
    history: tuple[Rollout, ...] = ()
    rollouts_begun: int = 0
    groups: tuple[Group, ...] = ()
    groups_made: int = 0
    hooks_begun: dict[str, dict[str, bool]] = {}
    slots: tuple[Slot, ...] = ()

    @property
    def replicas(self) -> int:
        """How many groups a revision at full strength has."""
        return self.settings.replicas if self.scaled_to is None else self.scaled_to

    def port_of(self, revision: str) -> int:
        """Return the port at which a revision's groups are fronted.

        It is the configured one if the revision declares it, else its own first: the config may
        have moved on while older groups still run.
        """
        containers, wanted = self.revisions[revision].template.containers, self.settings.port
        first = 0
        for container in containers:
            if wanted in container.ports:
                return wanted
            first = first or next(iter(container.ports), 0)
        return first or wanted

    def live(self, revision: str) -> list[Group]:
        """Return the replicas of a revision that are meant to stay."""
        return [
            g for g in self.groups if g.revision == revision and not g.is_retiring and not g.hook
        ]

    def ready(self, revision: str) -> list[Group]:
        """Return the live replicas of a revision that pass their probes."""
        return [
            g
            for g in self.groups
            if g.is_ready and g.revision == revision and not g.is_retiring and not g.hook
        ]

    def serves(self, revision: str) -> bool:
        """Whether a group of a revision is ready and runs; one that did its work serves nobody."""
        return any(g.phase is GroupPhase.started for g in self.ready(revision))

    def with_group(self, group: Group) -> "EndpointState":
        """Return the state with the group of that id replaced."""
        return self.but(groups=tuple(group if g.id == group.id else g for g in self.groups))
