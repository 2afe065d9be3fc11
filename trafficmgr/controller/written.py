"""An endpoint's settings as people would write them, key by key: what a plan compares.

Keys are named as in the YAML file. What differs here is a change; what is not here is no setting.
"""

import shlex
from collections.abc import Iterator
from typing import assert_never

from trafficmgr.config.settings import EndpointConfig
from trafficmgr.config.units import shown, shown_share, shown_size
from trafficmgr.controller.written_http import policy
from trafficmgr.core.gating import (
    Check,
    CommandCheck,
    Compare,
    Gates,
    Hook,
    HookStage,
    HttpCall,
    JsonCheck,
    ProbeCheck,
    Smoke,
    SmokeRequest,
    TaskCommand,
)
from trafficmgr.core.model import EndpointSettings, Step
from trafficmgr.core.template import (
    ContainerTemplate,
    EmptyDir,
    ExecCheck,
    FromEnv,
    FromFile,
    FromSecret,
    GroupTemplate,
    HostPath,
    HttpCheck,
    Probe,
    Resources,
    SecretFiles,
    TcpCheck,
    ValueFrom,
)

Written = dict[str, str]
"""Key -> value, both as in the file."""

PLAIN = "="
"""Begins the values of variables that stand in the file, and nothing else."""


def written(config: EndpointConfig) -> Written:
    """Return everything that can be configured about an endpoint."""
    given = config.settings
    return {
        "hosts": ", ".join(given.hosts),
        "ttl": shown(given.ttl_s),
        "ttl_grace": shown(given.ttl_grace_s),
        "publish": given.publish.value,
        "affinity": f"{given.affinity.value} {given.http.affinity_name}".rstrip(),
        **dict(policy(given.http)),
        "port": str(given.port),
        "group.replicas": str(given.replicas),
        **dict(_group(given.template)),
        "update.every": shown(config.update.every_s),
        **dict(_rollout(given)),
        "drain.http": shown(given.drain_http_s),
        "drain.websocket": shown(given.drain_websocket_s),
        "max_revisions": str(given.max_revisions),
        "fence": shown(given.fence_s),
    }


# -- the rollout ----------------------------------------------------------------------------------


def _rollout(given: EndpointSettings) -> Iterator[tuple[str, str]]:
    yield "rollout.steps", ", ".join(map(_step, given.steps)) or "100 % at once"
    yield "rollout.candidate_replicas", given.candidate_replicas.value
    yield "rollout.on_newer", given.on_newer.value
    yield "rollout.min_ready", shown(given.min_ready_s)
    yield "rollout.deadline", shown(given.deadline_s)
    yield "rollout.watch", shown(given.watch_s)
    yield "rollout.keep_previous", shown(given.keep_previous_s)
    yield from _gates(given.gates)
    for stage in HookStage:
        yield from _hooks(stage, [hook for hook in given.hooks if hook.stage is stage])
    yield "rollout.smoke", "" if given.smoke is None else _smoke(given.smoke)


def _step(step: Step) -> str:
    what = f"{step.weight_pct} %" if step.weight_pct else "preview"
    lasts = "until `promote`" if step.pause else f"for {shown(step.hold_s)}"
    own = "" if step.deadline_s is None else f" (deadline {shown(step.deadline_s)})"
    return f"{what} {lasts}{own}"


def _gates(given: Gates) -> Iterator[tuple[str, str]]:
    key = "rollout.gates"
    rate, compare = given.max_error_rate, given.compare
    yield f"{key}.max_error_rate", "" if rate is None else shown_share(rate)
    for name, limit in (("50", given.max_p50_s), ("95", given.max_p95_s), ("99", given.max_p99_s)):
        yield f"{key}.max_p{name}", "" if limit is None else shown(limit)
    yield f"{key}.min_requests", "" if given.min_requests is None else str(given.min_requests)
    yield f"{key}.compare", "" if compare is None else _compare(compare)
    for check in given.checks:
        yield f"{key}.checks.{check.name}", _gate(check)
    yield f"{key}.max_hold", shown(given.max_hold_s)
    yield f"{key}.on_insufficient", given.on_insufficient.value


def _compare(given: Compare) -> str:
    latency = "with" if given.has_latency else "without"
    return f"alpha {shown_share(given.alpha)}, catch {shown_share(given.catch)}, {latency} latency"


def _gate(given: Check) -> str:
    often = f"every {shown(given.every_s)}, timeout {shown(given.timeout_s)}, fall {given.fall}"
    return f"{_asked(given.ask)} {often}"


def _asked(ask: JsonCheck | CommandCheck | ProbeCheck) -> str:
    match ask:
        case JsonCheck(path=""):
            return f"http {ask.url}"
        case JsonCheck():
            bounds = (("at least", ask.at_least), ("at most", ask.at_most))
            said = " and ".join(f"{word} {limit}" for word, limit in bounds if limit is not None)
            return f"http {ask.url} with {ask.path} {said}"
        case CommandCheck():
            return f"command {shlex.join(ask.command)}"
        case ProbeCheck():
            return f"probe {_check(ask.check)}" + (f" in {ask.container}" if ask.container else "")
        case _:
            assert_never(ask)


def _hooks(stage: HookStage, given: list[Hook]) -> Iterator[tuple[str, str]]:
    """Yield the hooks of a stage: which, as they are done in this order, and what each does."""
    key = f"rollout.hooks.{stage.value}"
    yield key, ", ".join(hook.name for hook in given)
    for hook in given:
        yield f"{key}.{hook.name}", _hook(hook)


def _hook(given: Hook) -> str:
    final = "" if given.is_reversible else ", not reversible"
    return f"{_done(given.action)}, timeout {shown(given.timeout_s)}{final}"


def _done(action: HttpCall | TaskCommand) -> str:
    match action:
        case HttpCall(url=url, method=method):
            return f"{method} {url}"
        case TaskCommand(container=container, command=command):
            return f"command {shlex.join(command)} in {container}"
        case _:
            assert_never(action)


def _smoke(given: Smoke) -> str:
    asked = ", ".join(map(_request, given.requests))
    return f"{asked}, timeout {shown(given.timeout_s)}" + ", rehearsed" * given.is_rehearsed


def _request(given: SmokeRequest) -> str:
    body = f" with {given.body!r}" if given.body else ""
    return f"GET {given.path} is {given.status}{body}"


# -- the group ------------------------------------------------------------------------------------


def _group(given: GroupTemplate) -> Iterator[tuple[str, str]]:
    yield "group.restart", given.restart.value
    yield from _resources("group.resources", given.resources)
    yield "group.rootfs", given.rootfs
    yield "group.init_containers", ", ".join(one.name for one in given.init_containers)
    yield "group.containers", ", ".join(one.name for one in given.containers)
    for volume in given.volumes:
        yield f"group.volumes.{volume.name}", _volume(volume.source)
    for init in given.init_containers:
        yield from _container(f"group.init_containers.{init.name}", init)
    for container in given.containers:
        yield from _container(f"group.containers.{container.name}", container)


def _container(key: str, given: ContainerTemplate) -> Iterator[tuple[str, str]]:
    yield f"{key}.image", f"{given.image}:{given.tag}"
    yield f"{key}.command", shlex.join(given.command)
    for name, value in given.env.items():
        yield f"{key}.env.{name}", f"{PLAIN}{value}"
    for name, source in given.env_from.items():
        yield f"{key}.env.{name}", source_of(source)
    yield f"{key}.ports", ", ".join(map(str, given.ports))
    yield f"{key}.working_dir", given.working_dir
    yield f"{key}.user", given.user
    for mount in given.mounts:
        yield f"{key}.mounts.{mount.path}", mount.volume + " (read only)" * mount.is_read_only
    yield from _resources(f"{key}.resources", given.resources)
    yield f"{key}.stop_grace", shown(given.stop_grace_s)
    yield f"{key}.readiness", "" if given.readiness is None else _probe(given.readiness)
    yield f"{key}.liveness", "" if given.liveness is None else _probe(given.liveness)
    yield f"{key}.pre_stop", "" if given.pre_stop is None else _check(given.pre_stop)


def _resources(key: str, given: Resources) -> Iterator[tuple[str, str]]:
    yield f"{key}.cpu", "" if given.cpu is None else f"{given.cpu:g}"
    yield f"{key}.memory", "" if given.memory_bytes is None else shown_size(given.memory_bytes)


def _volume(source: EmptyDir | HostPath | SecretFiles) -> str:
    match source:
        case EmptyDir(size_bytes=None):
            return "empty_dir"
        case EmptyDir(size_bytes=int(size_bytes)):
            return f"empty_dir of {shown_size(size_bytes)}"
        case HostPath(path=path):
            return f"host_path {path}"
        case SecretFiles(files=files):
            named = ", ".join(f"{file}: {secret}" for file, secret in files.items())
            return f"secret {{{named}}}"
    raise AssertionError(f"there is no volume like {source!r}")


def source_of(source: ValueFrom) -> str:
    """Return where a value is read from; never the value."""
    match source:
        case FromSecret(name=name):
            return f"from secret {name}"
        case FromFile(path=path):
            return f"from file {path}"
        case FromEnv(variable=variable):
            return f"from env {variable}"
        case _:
            assert_never(source)


def _check(check: HttpCheck | TcpCheck | ExecCheck) -> str:
    match check:
        case HttpCheck(port=port, path=path):
            return f"http :{port}{path}"
        case TcpCheck(port=port):
            return f"tcp :{port}"
        case ExecCheck(command=command):
            return f"exec {shlex.join(command)}"
        case _:
            assert_never(check)


def _probe(probe: Probe) -> str:
    every, timeout = shown(probe.every_s), shown(probe.timeout_s)
    thresholds = f"rise {probe.rise}, fall {probe.fall}"
    delay = f", after {shown(probe.initial_delay_s)}" if probe.initial_delay_s else ""
    return f"{_check(probe.check)} every {every}, timeout {timeout}, {thresholds}{delay}"
