"""The shape of `rollout.hooks` and `rollout.smoke`: what is done once per revision.

How a shape is read is in `shape`; what must hold between these and a group is in `checks_gates`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trafficmgr.config.mapping import Shape, chosen, defaults
from trafficmgr.config.problems import UnfitError
from trafficmgr.config.scalars import (
    Argument,
    Flag,
    Name,
    Pattern,
    PositiveDuration,
    Status,
    Url,
    UrlPath,
)
from trafficmgr.core.gating import Hook, HttpCall, Smoke, SmokeRequest

_HOOK = defaults(Hook)
_CALL = defaults(HttpCall)
_REQUEST = defaults(SmokeRequest)
_SMOKE = defaults(Smoke)


class CallShape(Shape):
    """An HTTP request to somebody; any 2xx answer is success."""

    url: Url
    """The whole address. It is journaled and shown, so it is no place for a password."""
    method: Literal["GET", "POST", "PUT"] = _CALL["method"]
    """The method of the request."""


class AfterHookShape(Shape):
    """Something that is done once for a new revision: one of `command`, `http`."""

    name: Annotated[Name, Field(examples=["announce"])]
    """What it is called; among the hooks of the endpoint only once."""
    command: Annotated[list[Argument], Field(min_length=1, examples=[["./migrate"]])] | None = None
    """What to run in a group of its own, one item per argument; exit code 0 is success."""
    container: Name | None = None
    """Whose image, variables, volumes and limits the command gets; by default the only one's."""
    http: Annotated[
        CallShape | None, Field(examples=[{"url": "http://127.0.0.1:9000/announce"}])
    ] = None
    """The request to make."""
    timeout: PositiveDuration = _HOOK["timeout_s"]
    """How long it may take; then it has failed."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        kind = chosen(self, "command", "http", add="command: [./migrate]")
        if self.container is not None and kind == "http":
            raise UnfitError("says nothing to http", "remove it", at=("container",))
        return self


class HookShape(AfterHookShape):
    """A hook before the end of a rollout; its failure aborts the rollout."""

    reversible: Flag = _HOOK["is_reversible"]
    """Whether a rollout can still go back by itself once this has begun."""


class HooksShape(Shape):
    """What is done once for each new revision, in the order of the file."""

    before: Annotated[
        list[HookShape], Field(examples=[[{"name": "migrate", "command": ["./migrate"]}]])
    ] = []
    """Before any group of the new revision starts."""
    gate: Annotated[
        list[HookShape], Field(examples=[[{"name": "check", "command": ["./check"]}]])
    ] = []
    """After the last step, before the new revision is promoted."""
    after: Annotated[
        list[AfterHookShape], Field(examples=[[{"name": "announce", "command": ["./announce"]}]])
    ] = []
    """When all is over; what fails here is noted and changes nothing."""


class SmokeRequestShape(Shape):
    """A GET to the preview, and what it must answer."""

    path: UrlPath = _REQUEST["path"]
    """The path to ask for."""
    status: Status = _REQUEST["status"]
    """The status that it must have."""
    body: Pattern = _REQUEST["body"]
    """A regular expression that must be found in the body; by default anything goes."""


class SmokeShape(Shape):
    """Requests through the workers to the preview of a new revision, before any step."""

    requests: Annotated[
        list[SmokeRequestShape], Field(min_length=1, examples=[[{"path": "/", "status": 200}]])
    ] = [SmokeRequestShape()]
    """What is asked; by default "/", which must be answered with 200."""
    timeout: PositiveDuration = _SMOKE["timeout_s"]
    """How long each answer may take."""
    rehearse: Flag = _SMOKE["is_rehearsed"]
    """Whether the preview is switched back to the stable revision and forth again, each asked."""
