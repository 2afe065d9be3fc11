"""The shape of `rollout`: how an endpoint moves to a new revision (see `shape`)."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trafficmgr.config import units
from trafficmgr.config.mapping import Shape, defaults
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import Duration, Flag, PositiveDuration, Weight
from trafficmgr.config.shape_gates import GatesShape
from trafficmgr.config.shape_hooks import HooksShape, SmokeShape
from trafficmgr.core.model import EndpointSettings, Step

_ENDPOINT = defaults(EndpointSettings)


def _rising(steps: "list[StepShape]") -> "list[StepShape]":
    """Return the steps if each gives the candidate more than the one before."""
    for index, (one, other) in enumerate(pairwise(steps), 1):
        if other.weight == 0:
            raise UnfitError(
                "is 0, which is a preview and comes before any weight",
                "only the first step can be a preview",
                at=(index, "weight"),
            )
        if other.weight <= one.weight:
            raise UnfitError(
                f"is not more than the {one.weight} of the step before",
                "weights rise from step to step",
                at=(index, "weight"),
            )
    return steps


def _check_end(hold_s: float | None, *, pause: bool) -> None:
    """Raise UnfitError unless something says how long it lasts."""
    if hold_s is None and not pause:
        raise UnfitError(
            'has no "hold"', "add hold: 10s, or pause: true to wait for `trafficmgr promote`"
        )


class StepShape(Shape):
    """One stage of a rollout. It ends by its hold, or, with `pause`, by `trafficmgr promote`."""

    weight: Weight
    """The candidate's share of the traffic, in per cent; 0 is a preview, in the first step only."""
    hold: Duration | None = None
    """How long it stays there."""
    pause: Flag = False
    """Whether it waits for `trafficmgr promote`, however long; then the hold is not looked at."""
    deadline: PositiveDuration | None = None
    """How long this step may go without progress; by default the rollout's deadline."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        _check_end(self.hold, pause=self.pause)
        return self


class PreviewShape(Shape):
    """How long a new revision is looked at before everybody gets it."""

    hold: Duration | None = None
    """How long it is there for `preview.<host>` only."""
    pause: Flag = False
    """Whether it waits for `trafficmgr promote`, however long; then the hold is not looked at."""

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        _check_end(self.hold, pause=self.pause)
        return self


def _default_steps() -> list[StepShape]:
    steps: tuple[Step, ...] = _ENDPOINT["steps"]
    return [
        StepShape.model_validate({"weight": step.weight_pct, "hold": units.shown(step.hold_s)})
        for step in steps
    ]


class RolloutShape(Shape):
    """How an endpoint moves to a new revision."""

    strategy: Literal["canary", "blue-green"] = "canary"
    """`canary`: in steps of rising weight. `blue-green`: all at once, after a preview if any."""
    steps: Annotated[list[StepShape], AfterValidator(_rising), Field(min_length=1)] = Field(
        default_factory=_default_steps, examples=[[{"weight": 10, "hold": "30s"}]]
    )
    """The stages, with rising weights below 100, which comes by itself; by default 5, 25, 50."""
    preview: PreviewShape | None = None
    """With blue-green: how long the new revision is there for `preview.<host>` only."""
    candidate_replicas: Literal["full", "scaled"] = _ENDPOINT["candidate_replicas"].value
    """How many groups a new revision starts: all at once, or as many as its next weight needs."""
    on_newer: Literal["supersede", "queue", "ignore"] = _ENDPOINT["on_newer"].value
    """What a newer image does to the rollout under way."""
    min_ready: Duration = _ENDPOINT["min_ready_s"]
    """How long a new group must stay ready before it counts."""
    deadline: PositiveDuration = _ENDPOINT["deadline_s"]
    """How long a rollout may go without progress before it is aborted."""
    watch: Duration = _ENDPOINT["watch_s"]
    """How long a promoted revision is watched and goes back by itself if it fails."""
    keep_previous: Duration = _ENDPOINT["keep_previous_s"]
    """How long the revision before is kept warm, for an instant undo."""
    gates: Annotated[GatesShape, Field(examples=[{"compare": True}])] = GatesShape()
    """What each step, and the watch after promotion, must pass; by default nothing."""
    hooks: Annotated[
        HooksShape, Field(examples=[{"before": [{"name": "migrate", "command": ["./migrate"]}]}])
    ] = HooksShape()
    """What is done once for each new revision, around its rollout."""
    smoke: Annotated[SmokeShape | None, Field(examples=[{"requests": [{"path": "/"}]}])] = None
    """Requests to the preview that must be answered as they should before any step."""

    @model_validator(mode="after")
    def _is_of_one_strategy(self) -> Self:
        if self.strategy == "blue-green" and "steps" in self.model_fields_set:
            raise UnfitError(
                "has no place in blue-green, which moves all traffic at once",
                "remove it; preview: {hold: 30s} looks at the new revision before that",
                at=("steps",),
            )
        if self.strategy == "canary" and self.preview is not None:
            raise UnfitError(
                "belongs to blue-green",
                "write strategy: blue-green, or begin the steps with {weight: 0, hold: 30s}",
                at=("preview",),
            )
        return self
