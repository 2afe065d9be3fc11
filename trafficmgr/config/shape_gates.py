"""The shape of `rollout.gates`: what a revision must pass in each step (see `shape`).

Keys that stand for themselves judge by what our own workers counted; `checks` ask the world. What
must hold between a gate and the rest of its endpoint is in `checks_gates`.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from trafficmgr.config.mapping import AlsoAlone, Shape, chosen, defaults, or_switch
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import (
    Alpha,
    Argument,
    Count,
    Flag,
    Interval,
    JsonPath,
    Latency,
    Name,
    Number,
    Port,
    PositiveDuration,
    Requests,
    Share,
    Url,
)
from trafficmgr.config.shape_group import ExecShape, HttpShape, TcpShape
from trafficmgr.config.units import shown
from trafficmgr.core.gating import Check, Compare, Gates

_GATES = defaults(Gates)
_CHECK = defaults(Check)
_COMPARE = defaults(Compare)

TRAFFIC_GATES = (
    "max_error_rate", "max_p50", "max_p95", "max_p99", "min_requests", "compare",
)  # fmt: skip
"""Keys that are gates on what our own workers counted; each is the name of its gate as well."""


class CompareShape(Shape):
    """The new revision held against the stable one, at the same time and by the same clients."""

    alpha: Alpha = _COMPARE["alpha"]
    """The share of good releases that it may condemn at most, however often it looks."""
    catch: Share = _COMPARE["catch"]
    """The share of failures that would have been noticed for sure before it passes."""
    latency: Flag | None = None
    """Whether slow answers count, too; by default so, unless the endpoint has an affinity."""


class JsonCheckShape(Shape):
    """A GET whose status decides (2xx passes), or a number in the JSON that it answers."""

    url: Url
    """The whole address to ask. It is journaled and shown, so it is no place for a password."""
    number: Annotated[JsonPath | None, Field(alias="json")] = None
    """Where the number is in the answer: keys and indices with dots between."""
    at_least: Number | None = None
    """It passes from this number on."""
    at_most: Number | None = None
    """It passes up to this number."""

    @model_validator(mode="after")
    def _has_all_to_compare(self) -> Self:
        bounds = [key for key in ("at_least", "at_most") if getattr(self, key) is not None]
        if bounds and self.number is None:
            hint = "add json: with the path of a number in the answer, as data.result.0.value.1"
            raise UnfitError("has nothing to be compared with", hint, at=(bounds[0],))
        if self.number is not None and not bounds:
            hint = "add at_most: 0.01 or at_least: 1; without json: the status decides"
            raise UnfitError("has no bound that it must keep to", hint, at=("json",))
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            hint = f"write {self.at_least:g} or more"
            raise UnfitError("is less than at_least, so nothing can pass", hint, at=("at_most",))
        return self


class GroupHttpShape(HttpShape):
    """An HTTP request that passes on any 2xx answer; redirects are not followed."""

    port: Port | None = None
    """The port to ask; by default the one that gets the endpoint's traffic."""


class GroupTcpShape(TcpShape):
    """A connection that passes when it opens."""

    port: Port | None = None
    """The port to connect to; by default the one that gets the endpoint's traffic."""


class ProbeCheckShape(Shape):
    """A probe of every ready group of the new revision: one of `http`, `tcp`, `exec`."""

    http: GroupHttpShape | None = None
    """Ask for a path; any 2xx answer passes."""
    tcp: GroupTcpShape | None = None
    """Open a connection."""
    exec: Annotated[ExecShape | None, Field(examples=[{"command": ["./check"]}])] = None
    """Run a command inside the container; exit code 0 passes."""
    container: Name | None = None
    """Where an `exec` runs; by default in the group's only container."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        kind = chosen(self, "http", "tcp", "exec", add="http: {path: /deep}")
        if self.container is not None and kind != "exec":
            hint = "remove it: the containers of a group share their address"
            raise UnfitError(f"says nothing to {kind}", hint, at=("container",))
        return self


class CheckShape(Shape):
    """A gate that asks the world: exactly one of `http`, `command`, `probe`."""

    name: Annotated[Name, Field(examples=["budget"])]
    """What it is called in verdicts; among the gates of the endpoint only once."""
    http: Annotated[
        JsonCheckShape | None, Field(examples=[{"url": "http://127.0.0.1:9090/healthy"}])
    ] = None
    """Ask a URL; its status decides, or a number in its JSON."""
    command: Annotated[list[Argument], Field(min_length=1, examples=[["./check.sh"]])] | None = None
    """What to run on trafficmgr's host, one item per argument; exit code 0 passes."""
    probe: Annotated[ProbeCheckShape | None, Field(examples=[{"http": {"path": "/deep"}}])] = None
    """Probe every ready group of the new revision."""
    every: Interval = _CHECK["every_s"]
    """How often to ask."""
    timeout: PositiveDuration = _CHECK["timeout_s"]
    """How long an answer may take."""
    fall: Count = _CHECK["fall"]
    """How many failures in a row are a verdict; what can't be asked is none."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        chosen(self, "http", "command", "probe", add="probe: {http: {path: /deep}}")
        return self


class GatesShape(Shape):
    """What each step of a rollout, and the watch after promotion, must pass."""

    max_error_rate: Share | None = None
    """The largest share of requests that may fail."""
    max_p50: Latency | None = None
    """How long half of the answers may take at most to begin."""
    max_p95: Latency | None = None
    """How long 95 % of the answers may take at most to begin."""
    max_p99: Latency | None = None
    """How long 99 % of the answers may take at most to begin."""
    min_requests: Requests | None = None
    """How many requests of the new revision a step must have seen before a limit passes."""
    compare: Annotated[
        CompareShape | None,
        BeforeValidator(or_switch),
        AlsoAlone(type="boolean"),
        Field(examples=[True]),
    ] = None
    """Compare the new revision with the stable one; `true` with the defaults."""
    checks: Annotated[
        list[CheckShape], Field(examples=[[{"name": "report", "command": ["./check.sh"]}]])
    ] = []
    """Gates that ask the world."""
    max_hold: PositiveDuration = _GATES["max_hold_s"]
    """How long a step may last at most until its gates have seen enough."""
    on_insufficient: Literal["promote", "abort", "pause"] = _GATES["on_insufficient"].value
    """What happens when they have not even then: go on, go back, or ask."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        limits = ((key, getattr(self, key)) for key in ("max_p50", "max_p95", "max_p99"))
        for (one, least), (other, limit) in pairwise(
            pair for pair in limits if pair[1] is not None
        ):
            if limit < least:
                hint = f"more answers are within it, so write {shown(least)} or more"
                raise UnfitError(f"is less than {one}", hint, at=(other,))
        return self

    def is_off(self) -> bool:
        """Whether there is no gate at all."""
        return not self.checks and all(getattr(self, key) is None for key in TRAFFIC_GATES)
