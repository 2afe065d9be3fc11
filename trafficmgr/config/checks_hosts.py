"""What must hold between hosts: to whom each leads, by what they are told apart, who finds them.

A host and a path lead to one endpoint. Endpoints that share a host differ in their `http: paths`,
and all of them are served by the proxy: DNS answers for a name and knows no paths.
"""

from collections.abc import Iterator

from trafficmgr.config.document import Loc
from trafficmgr.config.names import is_wildcard
from trafficmgr.config.shape import EndpointShape, FileShape, ZoneShape
from trafficmgr.config.units import shown
from trafficmgr.config.wording import Fault
from trafficmgr.core.routing import PREVIEW_PREFIX

Owners = dict[str, list[str]]
"""Host -> the endpoints that have it, in the order of the file."""


def faults_of(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    """Yield hosts that lead nowhere, or to more than one endpoint."""
    owners: Owners = {}
    for name, endpoint in file.endpoints.items():
        yield from _paths(name, endpoint)
        for index, host in enumerate(endpoint.hosts):
            loc: Loc = ("endpoints", name, "hosts", index)
            for owner in owners.get(host, []):
                yield from _shared(loc, owner, file)
            owners.setdefault(host, []).append(name)
            if endpoint.publish == "groups" and not broken & {"zones"}:
                yield from _zoneless(loc, host, file.zones)
    yield from _previews(file, owners)


def _paths(name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    """Yield paths that nothing could keep to."""
    if endpoint.http.paths and endpoint.publish == "groups":
        text = (
            f'"paths" of endpoint "{name}" need the proxy: with publish: groups clients connect to'
            " the groups, whatever path they ask for"
        )
        yield Fault(("endpoints", name, "http", "paths"), text, "write publish: proxy", on_key=True)


def _shared(loc: Loc, owner: str, file: FileShape) -> Iterator[Fault]:
    """Yield what keeps an endpoint from sharing a host with another.

    Args:
        loc: The host, among those of the later one.
        owner: The endpoint that had it first.
        file: The whole file.
    """
    name, host = str(loc[1]), file.endpoints[str(loc[1])].hosts[int(loc[3])]
    one, other = file.endpoints[owner], file.endpoints[name]
    what = f'host "{host}" of endpoint "{name}"'
    if {*one.http.paths} & {*other.http.paths} or one.http.paths == other.http.paths:
        yield from _same_path(loc, what, owner, file)
    elif "groups" in {one.publish, other.publish}:
        text = f'{what} is that of "{owner}", too, and DNS can\'t answer with the groups of both'
        yield Fault(loc, text, "write publish: proxy for both, or give one another host")
    elif one.ttl != other.ttl:
        text = f'{what} is that of "{owner}", too, and a DNS name has one TTL'
        yield Fault(loc, text, f"write ttl: {shown(one.ttl)} for both")


def _same_path(loc: Loc, what: str, owner: str, file: FileShape) -> Iterator[Fault]:
    name = str(loc[1])
    mine, theirs = file.endpoints[name].http.paths, file.endpoints[owner].http.paths
    if not mine:
        hint = "remove one of them, or part them by http: {paths: [/api]}"
        yield Fault(loc, f'{what} already leads to "{owner}"', hint)
    for index, path in enumerate(mine):
        if path in theirs and name != owner:
            text = f'{what} already leads to "{owner}" for {path}'
            place: Loc = ("endpoints", name, "http", "paths", index)
            yield Fault(place, text, "a path of a host leads to one endpoint: remove one of them")
    if mine and name == owner:
        yield Fault(loc, f"{what} is there twice", "remove one of them")


def _previews(file: FileShape, owners: Owners) -> Iterator[Fault]:
    """Yield hosts that are named as the preview of another is; wildcards have none."""
    for name, endpoint in file.endpoints.items():
        for index, host in enumerate(endpoint.hosts):
            previewed = host.removeprefix(PREVIEW_PREFIX)
            if previewed != host and previewed in owners:
                text = (
                    f'host "{host}" of endpoint "{name}" is the name at which a new revision of'
                    f' "{owners[previewed][0]}" is previewed'
                )
                loc: Loc = ("endpoints", name, "hosts", index)
                yield Fault(loc, text, f"give it a name other than {PREVIEW_PREFIX}{previewed}")


def _zoneless(loc: Loc, host: str, zones: list[ZoneShape]) -> Iterator[Fault]:
    """Yield a fault if nobody could resolve the host to a group's address."""
    if any(f".{host}".endswith(f".{zone.name}") for zone in zones):
        return
    parent = host.partition(".")[2] or host
    text = f'host "{host}" lies in no zone, so DNS can\'t answer with its groups'
    hint = f"add a zone: {{name: {parent}, ns: [ns1.{parent}]}}"
    yield Fault(loc, text, hint)


def previewed(endpoint: EndpointShape) -> bool:
    """Whether there is a name at which a new revision can be looked at."""
    return not all(map(is_wildcard, endpoint.hosts))
