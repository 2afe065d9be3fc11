"""What another config would change, key by key: pure, so that `plan` can't do anything.

Keys are named as in the YAML file and values shown as one would write them. Some keys are the
supervisor's or were given out already; they need a new `trafficmgr run`. What is in `env` may be a
secret: that it changes is said, its values are not.
"""

import shlex
from collections.abc import Iterator
from enum import StrEnum
from typing import assert_never

from trafficmgr.config.settings import EndpointConfig, RegistrySettings, Settings
from trafficmgr.config.units import shown, shown_size
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Step
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Zone
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
    revision_id,
)

Written = dict[str, str]
"""Key -> value, both as in the file."""

HIDDEN = "(hidden)"
PLAIN = "="
"""Begins the values of variables that stand in the file, and nothing else."""


class Changed(Noun):
    """One key and its values; "" is not there."""

    key: str
    old: str
    new: str


class Fate(StrEnum):
    """What becomes of an endpoint."""

    unchanged = "unchanged"
    new = "new"
    changed = "changed"
    removed = "removed"


class EndpointPlan(Noun):
    """What would happen to one endpoint.

    `has_new_group` means a new revision whatever the registry says, `has_new_tag` one if the tag
    names another image. `is_under_way` is whether a rollout goes on, with the settings it began
    with. `groups` is how many groups it has now.
    """

    name: str
    fate: Fate
    changed: tuple[Changed, ...] = ()
    has_new_group: bool = False
    has_new_tag: bool = False
    is_under_way: bool = False
    groups: int = 0


class Moved(Noun):
    """A host that would lead to an endpoint that has yet to start."""

    host: str
    old: str
    new: str


class Needed(Noun):
    """A secret that would be gone, though groups of a revision could not be replaced without it."""

    secret: str
    endpoint: str
    revision: str


class Plan(Noun):
    """Everything that another config would change.

    `restart` is what it can't, and `needed` what it must not, as things are.
    """

    restart: tuple[Changed, ...]
    service: tuple[Changed, ...]
    endpoints: tuple[EndpointPlan, ...]
    moved: tuple[Moved, ...] = ()
    needed: tuple[Needed, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether all would stay as it is."""
        are_same = all(one.fate is Fate.unchanged for one in self.endpoints)
        return are_same and not self.restart and not self.service


def compared(old: Settings, new: Settings, fleet: Fleet) -> Plan:
    """Return what would change if the new settings took the place of the old."""
    names = sorted(old.endpoints.keys() | new.endpoints.keys())
    return Plan(
        restart=tuple(differences(_fixed(old), _fixed(new))),
        service=tuple(differences(_service(old), _service(new))),
        endpoints=tuple(
            _endpoint(name, old.endpoints.get(name), new.endpoints.get(name), fleet)
            for name in names
        ),
        moved=tuple(_moved(old, new)),
        needed=tuple(_needed(old, new, fleet)),
    )


def differences(old: Written, new: Written) -> Iterator[Changed]:
    """Yield every key whose value differs, in the order of the file."""
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key, ""), new.get(key, "")
        if before != after:
            if ".env." in key:
                before, after = _shown(before), _shown(after)
            yield Changed(key=key, old=before, new=after)


def _shown(value: str) -> str:
    """Return a variable's value as it may be shown: where it comes from, or that there is one."""
    return HIDDEN if value.startswith(PLAIN) else value


# -- endpoints ------------------------------------------------------------------------------------


def _endpoint(
    name: str, old: EndpointConfig | None, new: EndpointConfig | None, fleet: Fleet
) -> EndpointPlan:
    state = fleet.endpoints.get(name)
    groups = len(state.groups) if state else 0
    if old is None or new is None:
        return EndpointPlan(name=name, fate=Fate.new if new else Fate.removed, groups=groups)
    changed = tuple(differences(written(old), written(new)))
    before, after = old.settings.template, new.settings.template
    rollout = state.rollout if state else None
    return EndpointPlan(
        name=name,
        fate=Fate.changed if changed else Fate.unchanged,
        changed=changed,
        has_new_group=revision_id(before, ()) != revision_id(after, ()),
        has_new_tag=_tags(before) != _tags(after),
        is_under_way=rollout is not None and not rollout.is_over,
        groups=groups,
    )


def _tags(template: GroupTemplate) -> list[str]:
    return [container.tag for container in template.every_container()]


def _moved(old: Settings, new: Settings) -> Iterator[Moved]:
    owners = {host: name for name, one in old.endpoints.items() for host in one.settings.hosts}
    for name, one in new.endpoints.items():
        for host in one.settings.hosts:
            if name not in old.endpoints and host in owners:
                yield Moved(host=host, old=owners[host], new=name)


def _needed(old: Settings, new: Settings, fleet: Fleet) -> Iterator[Needed]:
    """Yield each secret that would go and that a group may yet be started with."""
    gone = old.secrets.keys() - new.secrets.keys()
    for name in sorted(new.endpoints.keys() & fleet.endpoints.keys()):
        state = fleet.endpoints[name]
        for revision in sorted({group.revision for group in state.groups if not group.is_retiring}):
            for secret in sorted(gone & _secrets(state.revisions[revision].template)):
                yield Needed(secret=secret, endpoint=name, revision=revision)


def _secrets(template: GroupTemplate) -> set[str]:
    """Return the names of the secrets that a template's groups start with."""
    variables = [source for one in template.every_container() for source in one.env_from.values()]
    named = {source.name for source in variables if isinstance(source, FromSecret)}
    sources = [volume.source for volume in template.volumes]
    return named.union(*(one.files.values() for one in sources if isinstance(one, SecretFiles)))


def written(config: EndpointConfig) -> Written:
    """Return everything that can be configured about an endpoint."""
    given = config.settings
    return {
        "hosts": ", ".join(given.hosts),
        "ttl": shown(given.ttl_s),
        "ttl_grace": shown(given.ttl_grace_s),
        "publish": given.publish.value,
        "port": str(given.port),
        "group.replicas": str(given.replicas),
        **dict(_group(given.template)),
        "update.every": shown(config.update.every_s),
        "rollout.steps": ", ".join(map(_step, given.steps)) or "100 % at once",
        "rollout.candidate_replicas": given.candidate_replicas.value,
        "rollout.on_newer": given.on_newer.value,
        "rollout.min_ready": shown(given.min_ready_s),
        "rollout.deadline": shown(given.deadline_s),
        "rollout.watch": shown(given.watch_s),
        "rollout.keep_previous": shown(given.keep_previous_s),
        "drain.http": shown(given.drain_http_s),
        "drain.websocket": shown(given.drain_websocket_s),
        "max_revisions": str(given.max_revisions),
        "fence": shown(given.fence_s),
    }


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
        yield f"{key}.env.{name}", _source(source)
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


def _source(source: ValueFrom) -> str:
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


def _step(step: Step) -> str:
    what = f"{step.weight_pct} %" if step.weight_pct else "preview"
    lasts = "until `promote`" if step.pause else f"for {shown(step.hold_s)}"
    own = "" if step.deadline_s is None else f" (deadline {shown(step.deadline_s)})"
    return f"{what} {lasts}{own}"


# -- the service ----------------------------------------------------------------------------------


def _fixed(settings: Settings) -> Written:
    """Return what can't change while the service runs: sockets, processes, what was given out."""
    return {
        "state_dir": str(settings.state_dir),
        "listen.dns": ", ".join(map(str, settings.listen_dns)),
        "listen.http": ", ".join(map(str, settings.listen_http)),
        "address_pool": settings.address_pool,
        "workers": str(settings.workers),
        "runtime": settings.runtime.kind,
        "runtime.host": settings.runtime.host,
        "runtime.pause_image": settings.runtime.pause_image,
    }


def _service(settings: Settings) -> Written:
    return {
        "advertise": ", ".join(settings.advertise),
        "max_concurrent": str(settings.max_concurrent),
        "keep_logs": shown(settings.keep_logs_s),
        **{f"secrets.{name}": _source(one) for name, one in settings.secrets.items()},
        **{f"zones.{zone.name}": _zone(zone) for zone in settings.zones},
        **{f"registries.{host}": _registry(one) for host, one in settings.registries.items()},
    }


def _zone(zone: Zone) -> str:
    return f"ns {', '.join(zone.ns)}" + (f", mailbox {zone.mailbox}" if zone.mailbox else "")


def _registry(given: RegistrySettings) -> str:
    words = [f"user {given.username}" if given.username else "no user"]
    words += [f"password in {given.password_file}"] if given.password_file else []
    words += ["plain http"] if given.is_insecure else []
    return ", ".join(words)
