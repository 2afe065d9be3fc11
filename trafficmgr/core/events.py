"""Everything that can be observed or asked, as past participles.

An event carries `at`, the only time the core knows (seconds on CLOCK_BOOTTIME). Events with an
`endpoint` concern that endpoint; the others concern all of them.
"""

from trafficmgr.core.evidence import Evidence
from trafficmgr.core.gating import Verdict
from trafficmgr.core.model import EndpointSettings
from trafficmgr.core.noun import Noun
from trafficmgr.core.template import Revision


class Event(Noun, tag_field="event", tag=True):
    """Something that happened at a point in time."""

    at: float


class EndpointEvent(Event):
    """Something that happened to one endpoint."""

    endpoint: str


# -- the service ----------------------------------------------------------------------------------


class ControllerStarted(Event):
    """A controller took over; from here on every slot must say hello again (promise 1).

    Time that passed without a controller counts as time spent not knowing. With another
    `boot_id` than before, every wait starts again in full and no old process is trusted.
    """

    boot_id: str
    slots: int
    address_pool: str
    max_concurrent: int = 2


class EngineLost(Event):
    """The engine that runs the groups can't be asked; unknown is not failed (promise 12)."""

    reason: str


class EngineFound(Event):
    """The engine answers again."""


class LimitsApplied(Event):
    """At most so many rollouts may be under way at once, over all endpoints."""

    max_concurrent: int


class WorkerStarted(Event):
    """The supervisor started this worker in its slot; it has said nothing yet."""

    slot: int
    start_id: str


class WorkerConnected(Event):
    """A worker said hello from its slot, with the generation of each table that it serves."""

    slot: int
    start_id: str
    generations: dict[str, int] = {}


class WorkerEnded(Event):
    """A worker process is gone since `reaped_at`. May be told again; that changes nothing.

    A clean end said `bye` first, with when each group was last answered (endpoint -> group ->
    time). Anything else counts as having answered with every address of its last table until
    `reaped_at`.
    """

    slot: int
    start_id: str
    reaped_at: float
    is_clean: bool = False
    answered: dict[str, dict[str, float]] = {}


# -- one endpoint ---------------------------------------------------------------------------------


class SettingsApplied(EndpointEvent):
    """The endpoint is configured like this from now on."""

    settings: EndpointSettings


class EndpointRemoved(EndpointEvent):
    """The endpoint shall drain and end: taken out of the config, or `stop --groups`."""


class RevisionSeen(EndpointEvent):
    """The registry holds this revision for the endpoint's images now."""

    revision: Revision


class GroupStarted(EndpointEvent):
    """The runtime has the group's processes."""

    group: str


class GroupStartDelayed(EndpointEvent):
    """It can't be known now whether the group can be started: registry, engine or disk is away."""

    group: str
    reason: str


class GroupStartFailed(EndpointEvent):
    """The runtime could not start the group."""

    group: str
    reason: str


class GroupReady(EndpointEvent):
    """The group passed `rise` probes in a row."""

    group: str


class GroupUnready(EndpointEvent):
    """The group failed `fall` probes in a row, or fails for another reason than was known."""

    group: str
    reason: str = ""


class GroupEnded(EndpointEvent):
    """The group's processes ended without being told to."""

    group: str
    reason: str


class GroupCompleted(EndpointEvent):
    """All containers of the group ended, and its restart policy wants no other in its place."""

    group: str
    reason: str
    is_success: bool


class GroupStopped(EndpointEvent):
    """The group that was told to stop is gone, with everything it held."""

    group: str


class TableApplied(EndpointEvent):
    """A worker serves this generation now, or reports on one that it has applied before.

    Attributes:
        answered: For groups that this worker withdrew: when it last answered with their address.
        http_busy: Groups to which this worker still has requests under way.
        tunnel_busy: Groups to which this worker still has tunnels.
    """

    slot: int
    start_id: str
    generation: int
    answered: dict[str, float] = {}
    http_busy: tuple[str, ...] = ()
    tunnel_busy: tuple[str, ...] = ()


class DirectClientsGone(EndpointEvent):
    """After its TTL ran out, the kernel listed no connection to the group's address."""

    group: str


class GateJudged(EndpointEvent):
    """A gate has another verdict on the present stage of a rollout than before."""

    rollout: str
    stage: int
    verdict: Verdict


class EvidenceKept(EndpointEvent):
    """What the gates judge by, every 10 s at most: the one sample that is journaled."""

    rollout: str
    evidence: Evidence


class HookStarted(EndpointEvent):
    """A hook that is a call is about to be made: told before it is, so that it is made once."""

    rollout: str
    hook: str


class HookEnded(EndpointEvent):
    """A hook that is a call got its answer, or did not."""

    rollout: str
    hook: str
    is_success: bool
    reason: str = ""


class SmokeEnded(EndpointEvent):
    """The requests of one leg of the smoke test were answered."""

    rollout: str
    leg: int
    is_success: bool
    reason: str = ""


class PromoteAsked(EndpointEvent):
    """An operator wants the next step now, or with `is_full` all steps that are left."""

    is_full: bool = False


class PauseAsked(EndpointEvent):
    """An operator wants the rollout to stay where it is."""


class ResumeAsked(EndpointEvent):
    """An operator lets a paused rollout go on."""


class AbortAsked(EndpointEvent):
    """An operator wants the rollout undone now."""


class RollbackAsked(EndpointEvent):
    """An operator wants the revision back that was stable before."""


class RetryAsked(EndpointEvent):
    """An operator wants the newest revision tried again, although it failed or was ignored."""


class ScaleAsked(EndpointEvent):
    """An operator wants this many groups, until the config says another number."""

    replicas: int


class HoldAsked(EndpointEvent):
    """An operator wants requests to wait, for up to `hold_s`, in place of being served."""


class ReleaseAsked(EndpointEvent):
    """An operator lets requests that wait be served."""


class Woke(EndpointEvent):
    """The timer set by `wake_at` ran out."""


AnyEvent = (
    ControllerStarted
    | WorkerStarted
    | WorkerConnected
    | WorkerEnded
    | EngineLost
    | EngineFound
    | SettingsApplied
    | EndpointRemoved
    | RevisionSeen
    | GroupStarted
    | GroupStartDelayed
    | GroupStartFailed
    | GroupReady
    | GroupUnready
    | GroupEnded
    | GroupCompleted
    | GroupStopped
    | TableApplied
    | DirectClientsGone
    | LimitsApplied
    | GateJudged
    | EvidenceKept
    | HookStarted
    | HookEnded
    | SmokeEnded
    | PromoteAsked
    | PauseAsked
    | ResumeAsked
    | AbortAsked
    | RollbackAsked
    | RetryAsked
    | ScaleAsked
    | HoldAsked
    | ReleaseAsked
    | Woke
)
