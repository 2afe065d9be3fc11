"""What another config would change, key by key: pure, so that `plan` can't do anything.

Keys are named as in the YAML file and values shown as one would write them (`written`). Some keys
are the supervisor's or were given out already; they need a new `trafficmgr run`. What is in `env`
may be a secret: that it changes is said, its values are not.

Nothing but the group is a revision's identity. Steps, gates, hooks and smoke count from the next
rollout on: one that is under way keeps those that it began with.
"""

from collections.abc import Iterator
from enum import StrEnum

from trafficmgr.config.settings import EndpointConfig, RegistrySettings, Settings
from trafficmgr.config.units import shown
from trafficmgr.controller.written import PLAIN, Written, source_of, written
from trafficmgr.controller.written_dns import dns_policy
from trafficmgr.controller.written_http import front
from trafficmgr.core.fleet import Fleet
from trafficmgr.core.noun import Noun
from trafficmgr.core.routing import Zone
from trafficmgr.core.template import FromSecret, GroupTemplate, SecretFiles, revision_id

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
    """A host, or a path of one, that would lead to an endpoint that has yet to start."""

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
    """Yield each host, or path of a host, that a new endpoint takes over."""
    for name in sorted(new.endpoints.keys() - old.endpoints.keys()):
        given = new.endpoints[name].settings
        for host in given.hosts:
            for path in given.http.paths or ("",):
                if owner := _owner(old, host, path):
                    yield Moved(host=host + path, old=owner, new=name)


def _owner(settings: Settings, host: str, path: str) -> str:
    """Return the endpoint that has a path of a host, by the longest prefix; "" is none."""
    found: dict[str, str] = {}
    for name, one in settings.endpoints.items():
        for prefix in (one.settings.http.paths or ("",)) if host in one.settings.hosts else ():
            if f"{path}/".startswith(f"{prefix}/"):
                found[prefix] = name
    return found[max(found, key=len)] if found else ""


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


# -- the service ----------------------------------------------------------------------------------


def _fixed(settings: Settings) -> Written:
    """Return what can't change while the service runs: sockets, processes, what was given out."""
    return {
        "state_dir": str(settings.state_dir),
        "listen.dns": ", ".join(map(str, settings.listen_dns)),
        "listen.http": ", ".join(map(str, settings.listen_http)),
        "listen.https": ", ".join(map(str, settings.listen_https)),
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
        **dict(front(settings.front)),
        **dict(dns_policy(settings.dns)),
        **{f"secrets.{name}": source_of(one) for name, one in settings.secrets.items()},
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
