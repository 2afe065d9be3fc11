"""From the shape of gates, hooks and smoke to what the core decides by (see `translate`)."""

from collections.abc import Iterator
from pathlib import Path

from trafficmgr.config.checks_group import fronted_port
from trafficmgr.config.shape import EndpointShape
from trafficmgr.config.shape_gates import CheckShape, CompareShape, JsonCheckShape, ProbeCheckShape
from trafficmgr.config.shape_hooks import AfterHookShape, HookShape, SmokeShape
from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    Compare,
    Gates,
    Hook,
    HookStage,
    HttpCall,
    JsonCheck,
    OnInsufficient,
    ProbeCheck,
    Smoke,
    SmokeRequest,
    TaskCommand,
)
from trafficmgr.core.model import Affinity
from trafficmgr.core.template import ExecCheck, HttpCheck, TcpCheck


def gates_of(endpoint: EndpointShape, folder: Path) -> Gates:
    """Return the gates of an endpoint; `folder` is where relative paths start."""
    shape = endpoint.rollout.gates
    return Gates(
        max_error_rate=shape.max_error_rate,
        max_p50_s=shape.max_p50,
        max_p95_s=shape.max_p95,
        max_p99_s=shape.max_p99,
        min_requests=shape.min_requests,
        compare=_compare(shape.compare, endpoint) if shape.compare else None,
        checks=tuple(_check(check, endpoint, folder) for check in shape.checks),
        max_hold_s=shape.max_hold,
        on_insufficient=OnInsufficient(shape.on_insufficient),
    )


def hooks_of(endpoint: EndpointShape) -> tuple[Hook, ...]:
    """Return the hooks of an endpoint in the order in which they are done."""
    return tuple(_hooks(endpoint))


def smoke_of(shape: SmokeShape | None) -> Smoke | None:
    """Return what the preview is asked, if anything."""
    if shape is None:
        return None
    return Smoke(
        requests=tuple(
            SmokeRequest(path=one.path, status=one.status, body=one.body) for one in shape.requests
        ),
        timeout_s=shape.timeout,
        is_rehearsed=shape.rehearse,
    )


# -- gates ----------------------------------------------------------------------------------------


def _compare(shape: CompareShape, endpoint: EndpointShape) -> Compare:
    """Return the comparison. With an affinity its unit is the client, which has no latency."""
    is_plain = endpoint.affinity.kind is Affinity.none
    return Compare(
        alpha=shape.alpha,
        catch=shape.catch,
        has_latency=is_plain if shape.latency is None else shape.latency,
    )


def _check(shape: CheckShape, endpoint: EndpointShape, folder: Path) -> Check:
    ask: JsonCheck | CommandCheck | ProbeCheck
    if shape.http is not None:
        ask = _json(shape.http)
    elif shape.command is not None:
        ask = CommandCheck(command=_found(shape.command, folder))
    else:
        assert shape.probe is not None  # noqa: S101  the shape lets exactly one of them through
        ask = _probe(shape.probe, endpoint)
    return Check(
        name=shape.name, ask=ask, every_s=shape.every, timeout_s=shape.timeout, fall=shape.fall
    )


def _json(shape: JsonCheckShape) -> JsonCheck:
    return JsonCheck(
        url=shape.url, path=shape.number or "", at_least=shape.at_least, at_most=shape.at_most
    )


def _found(command: list[str], folder: Path) -> tuple[str, ...]:
    """Return a command of this host: a path starts at the file's folder, a bare name at PATH."""
    program, *arguments = command
    return (str(folder / program) if "/" in program else program, *arguments)


def _probe(shape: ProbeCheckShape, endpoint: EndpointShape) -> ProbeCheck:
    """Return a probe: by default of the port that gets the traffic, not of any container's own."""
    if shape.http is not None:
        port = shape.http.port or fronted_port(endpoint)
        return ProbeCheck(check=HttpCheck(port=port, path=shape.http.path))
    if shape.tcp is not None:
        return ProbeCheck(check=TcpCheck(port=shape.tcp.port or fronted_port(endpoint)))
    assert shape.exec is not None  # noqa: S101  the shape lets exactly one of them through
    container = shape.container or _only_container(endpoint)
    return ProbeCheck(check=ExecCheck(command=tuple(shape.exec.command)), container=container)


# -- hooks ----------------------------------------------------------------------------------------


def _hooks(endpoint: EndpointShape) -> Iterator[Hook]:
    for stage in HookStage:
        shapes: list[AfterHookShape] = getattr(endpoint.rollout.hooks, stage.value)
        for shape in shapes:
            yield Hook(
                name=shape.name,
                stage=stage,
                action=_action(shape, endpoint),
                timeout_s=shape.timeout,
                is_reversible=shape.reversible if isinstance(shape, HookShape) else True,
            )


def _action(shape: AfterHookShape, endpoint: EndpointShape) -> HttpCall | TaskCommand:
    if shape.http is not None:
        return HttpCall(url=shape.http.url, method=shape.http.method)
    assert shape.command is not None  # noqa: S101  the shape lets exactly one of them through
    container = shape.container or _only_container(endpoint)
    return TaskCommand(container=container, command=tuple(shape.command))


def _only_container(endpoint: EndpointShape) -> str:
    """Return the name of the container; where there are several, `checks_gates` wants it said."""
    return endpoint.group.containers[0].name
