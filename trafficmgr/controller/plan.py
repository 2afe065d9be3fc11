"""What another config would change, key by key: pure, so that `plan` can't do anything.

Keys are named as in the YAML file and values shown as one would write them. Some keys are the
supervisor's or were given out already; they need a new `trafficmgr run`. What is in `env` may be a
secret: that it changes is said, its values are not.
"""

import shlex
from collections.abc import Iterator
from enum import StrEnum

from trafficmgr.config.settings import EndpointConfig, RegistrySettings, Settings
from trafficmgr.config.units import shown
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.model import Step
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import ContainerTemplate, GroupTemplate, HttpCheck, Probe, revision_id

Written = dict[str, str]
"""Key -> value, both as in the file."""

HIDDEN = "(hidden)"


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


class Plan(Noun):
    """Everything that another config would change. `restart` is what it can't."""

    restart: tuple[Changed, ...]
    service: tuple[Changed, ...]
    endpoints: tuple[EndpointPlan, ...]
    moved: tuple[Moved, ...] = ()

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
    )


def differences(old: Written, new: Written) -> Iterator[Changed]:
    """Yield every key whose value differs, in the order of the file."""
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key, ""), new.get(key, "")
        if before != after:
            yield (
                _hidden(key, before, after)
                if ".env." in key
                else Changed(key=key, old=before, new=after)
            )


def _hidden(key: str, old: str, new: str) -> Changed:
    return Changed(key=key, old=HIDDEN if old else "", new=HIDDEN if new else "")


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
    return [container.tag for container in template.containers]


def _moved(old: Settings, new: Settings) -> Iterator[Moved]:
    owners = {host: name for name, one in old.endpoints.items() for host in one.settings.hosts}
    for name, one in new.endpoints.items():
        for host in one.settings.hosts:
            if name not in old.endpoints and host in owners:
                yield Moved(host=host, old=owners[host], new=name)


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
        "group.rootfs": given.template.rootfs,
        **{key: value for one in given.template.containers for key, value in _container(one)},
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


def _container(given: ContainerTemplate) -> Iterator[tuple[str, str]]:
    key = f"group.containers.{given.name}"
    yield f"{key}.image", f"{given.image}:{given.tag}"
    yield f"{key}.command", shlex.join(given.command)
    for name, value in given.env.items():
        yield f"{key}.env.{name}", f"={value}"
    yield f"{key}.ports", ", ".join(map(str, given.ports))
    yield f"{key}.working_dir", given.working_dir
    limits = given.resources
    yield f"{key}.resources.cpu", "" if limits.cpu is None else f"{limits.cpu:g}"
    memory = limits.memory_bytes
    yield f"{key}.resources.memory", "" if memory is None else f"{memory}B"
    yield f"{key}.stop_grace", shown(given.stop_grace_s)
    yield f"{key}.readiness", "" if given.readiness is None else _probe(given.readiness)


def _probe(probe: Probe) -> str:
    check = probe.check
    path = check.path if isinstance(check, HttpCheck) else ""
    kind = "http" if isinstance(check, HttpCheck) else "tcp"
    every, timeout = shown(probe.every_s), shown(probe.timeout_s)
    thresholds = f"rise {probe.rise}, fall {probe.fall}"
    return f"{kind} :{check.port}{path} every {every}, timeout {timeout}, {thresholds}"


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
        "runtime": settings.runtime,
    }


def _service(settings: Settings) -> Written:
    return {
        "advertise": ", ".join(settings.advertise),
        "max_concurrent": str(settings.max_concurrent),
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
