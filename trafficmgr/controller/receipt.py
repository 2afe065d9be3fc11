"""What a rollout cost its users, as measured: the nouns of a receipt.

Its times are seconds since 1970: CLOCK_BOOTTIME plus an offset that is fixed once in each boot, so
that within a boot differences are exact however the wall clock jumps.

A receipt is a **draft** until its rollout is over, the groups that lost are gone, and every worker
has reported since; then it is final and never changes. What could not be measured stands in `gaps`
as sentences. How a draft grows is growth.py's to say.
"""

from datetime import UTC, datetime

from trafficmgr.controller.counts import ByRevision, total
from trafficmgr.core.gating import HookPhase, HookStage, SmokePhase, Verdict
from trafficmgr.core.model import Mark, RolloutPhase
from trafficmgr.core.noun import Noun


class GroupFacts(Noun):
    """A group of the old or the new revision: when it was reached last, and when it was gone.

    `withdrawn_at` is when a table without it was made (None: it never was in one), `answered_at`
    when a DNS answer carried its address for the last time (None: never), `stopped_at` when it was
    gone (None: it is still there, or `is_missed`: nobody looked). `has_clients` says that it had
    to stop with requests or tunnels under way; how many is not known. `hook` names the hook whose
    task it ran ("": none).
    """

    id: str
    revision: str
    address: str
    hook: str = ""
    withdrawn_at: float | None = None
    answered_at: float | None = None
    stopped_at: float | None = None
    is_missed: bool = False
    has_clients: bool = False
    note: str = ""


class Window(Noun, kw_only=True):
    """A time in which the weights were the same, and what was counted under them.

    `weights` are revision -> per cent of the table that began it, whose `generation` it was.
    """

    generation: int
    at: float
    weights: dict[str, int]
    counted: ByRevision = {}


class WorkerEnd(Noun):
    """That a worker is gone: with a bye, without one, or while no controller was there to hear."""

    is_clean: bool = False
    is_unheard: bool = False


class Witness(Noun):
    """A worker whose counts go into a receipt.

    `counts` is what is booked of it already (None: it was there before the rollout, and was not
    heard of yet), `heard_at` the time of these; `window` is where more of it goes to, `applied`
    the generation that it has acknowledged.
    """

    slot: int
    window: int
    applied: int
    counts: ByRevision | None = None
    heard_at: float = 0.0
    end: WorkerEnd | None = None


class Judged(Noun):
    """A verdict that differed from the one before it: of which stage, and its time as ours.

    `stage` is a step's index, or their count: the watch. `weight_pct` is the stage's.
    """

    stage: int
    weight_pct: int
    verdict: Verdict


class HookFacts(Noun):
    """One time that a hook was done, or not.

    `began_at` is None if it was not done in this rollout. `output` is the end of what it wrote
    (None: not asked for yet, or `is_output_lost`).
    """

    name: str
    stage: HookStage
    phase: HookPhase = HookPhase.waiting
    group: str = ""
    began_at: float | None = None
    ended_at: float | None = None
    note: str = ""
    output: str | None = None
    is_output_lost: bool = False


class SmokeFacts(Noun):
    """The smoke test: how many legs were asked, of how many, and how the last one ended."""

    asked: int
    legs: int
    phase: SmokePhase
    note: str = ""


class Receipt(Noun, kw_only=True):
    """A rollout and everything that was measured of it.

    `present` are groups that run, `groups` those that are gone. `losing` are the revisions that
    must go before it is final, `settled_at` is when they had gone. `written_at` is when it was
    kept last. `steps` are the weights of its steps, `read_to` is the seq of the journal up to which
    verdicts were taken from it. `is_overruled`: an operator went on although something had failed.
    """

    id: str
    endpoint: str
    origin: str
    revision: str
    boot_id: str
    offset_s: float
    started_at: float
    ended_at: float | None = None
    settled_at: float | None = None
    written_at: float = 0.0
    is_final: bool = False
    is_rollback: bool = False
    phase: RolloutPhase = RolloutPhase.progressing
    reason: str = ""
    marks: tuple[Mark, ...] = ()
    windows: tuple[Window, ...]
    workers: dict[str, Witness] = {}
    present: dict[str, GroupFacts] = {}
    groups: tuple[GroupFacts, ...] = ()
    losing: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    verdicts: tuple[Judged, ...] = ()
    is_overruled: bool = False
    hooks: tuple[HookFacts, ...] = ()
    smoke: SmokeFacts | None = None
    read_to: int = 0
    gaps: tuple[str, ...] = ()

    def wall(self, at: float) -> float:
        """Return a moment of this boot's CLOCK_BOOTTIME as the receipt writes it."""
        return at + self.offset_s

    def counted(self) -> ByRevision:
        """Return everything that was counted, by revision; "" is what found no target."""
        return total(window.counted for window in self.windows)

    def with_gap(self, sentence: str) -> "Receipt":
        """Say once that something could not be measured."""
        return self if sentence in self.gaps else self.but(gaps=(*self.gaps, sentence))


def iso(wall_at: float) -> str:
    """Return a time as people and programs read it: "2026-11-22T09:12:33.250Z"."""
    moment = datetime.fromtimestamp(wall_at, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
