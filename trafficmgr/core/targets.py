"""What an endpoint can send traffic to beside its own groups, and what is wrong with such a list.

A target is one place: an address, a DNS name that is answered as CNAME, or another endpoint
("nested"), which then answers by a method of its own. A `TargetPolicy` is an endpoint's targets and
the method by which one of them, or a few, are chosen for a client (`core.methods`).

`problems` looks at one policy, `nesting_problems` at all of them together. Both return sentences
and never raise: a config shows all its problems at once. What passes both can be compiled and
served; nothing here asks the DNS whether a name exists.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from ipaddress import ip_address, ip_network
from math import isfinite
from typing import TypeVar

from trafficmgr.core.noun import Noun

Claim = TypeVar("Claim", int, str)


class RoutingMethod(StrEnum):
    """How a client's targets are chosen among the usable ones."""

    weighted = "weighted"
    priority = "priority"
    multivalue = "multivalue"
    subnet = "subnet"
    performance = "performance"
    geographic = "geographic"


class AddressKind(StrEnum):
    """What a target is answered with: an A, AAAA or CNAME record, or what its endpoint says."""

    ipv4 = "IPv4"
    ipv6 = "IPv6"
    name = "name"
    nested = "nested"


class ExternalTarget(Noun):
    """One place outside of our own groups.

    Attributes:
        name: How operators call it; unique within its policy.
        address: IPv4, IPv6 or a DNS name without the last dot; "" if it is nested.
        port: Where it is probed and dialled; None is what the endpoint says.
        endpoint: Nested: the endpoint that is asked in its place.
        weight: Its share beside the others'. 0 is drained: nothing, unless nobody else is left.
        priority: 1 is first.
        networks: Clients that are sent here (subnet); none: all that no network holds.
        region: Where it is, in the words of `TargetPolicy.latencies` (performance).
        places: Clients that are sent here (geographic): countries by ISO 3166-1 alpha-2 ("DE"),
            continents as "GEO-EU", or "WORLD". AS, NA, SA and AF alone are countries.
        is_enabled: False: neither probed nor served.
        always_serve: Served without being probed.
    """

    name: str
    address: str = ""
    port: int | None = None
    endpoint: str = ""
    weight: int = 1
    priority: int = 1
    networks: tuple[str, ...] = ()
    region: str = ""
    places: tuple[str, ...] = ()
    is_enabled: bool = True
    always_serve: bool = False


class TargetPolicy(Noun):
    """An endpoint's targets, and how one is chosen.

    Attributes:
        method: What decides.
        targets: In the order in which they were written.
        max_answers: Records per answer (multivalue). Azure's default is 2, Route 53 gives up to 8.
        min_ready_children: A nested target is Online if so many targets of its endpoint are. Azure
            calls it MinChildEndpoints.
        latencies: Milliseconds from a client's region to a target's region (performance).
        client_regions: Network -> region of its clients; the most specific counts (performance).
    """

    method: RoutingMethod
    targets: tuple[ExternalTarget, ...] = ()
    max_answers: int = 8
    min_ready_children: int = 1
    latencies: dict[str, dict[str, float]] = {}
    client_regions: dict[str, str] = {}


WORLD = "WORLD"
CONTINENT_PREFIX = "GEO-"
"""Continents are written as in Azure: alone, AF, AS, NA and SA would be Afghanistan and so on."""

LARGEST_WEIGHT = 1000
LOWEST_PRIORITY = 1000
"""Both as in Azure, so that its lists can be taken over; weight 0 is ours (Route 53 has it too)."""

MOST_ANSWERS = 10
"""As in Azure. Ten AAAA records take 280 bytes: with a usual name they fit 512 (RFC 1035)."""

DEEPEST_NESTING = 10
"""Endpoints in a row, the outermost included (Azure: ten levels)."""

_LARGEST_PORT = 65535
_LONGEST_NAME = 253
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+$){_LABEL}")  # a name that ends in a number is a slip
_PLACE = re.compile(rf"[A-Z]{{2}}|{WORLD}|{CONTINENT_PREFIX}(?:AF|AN|AS|EU|NA|OC|SA)")
_TWO_STACKS = {AddressKind.ipv4, AddressKind.ipv6}


def kind_of(target: ExternalTarget) -> AddressKind:
    """Return what a target is answered with; an address that is no IP address is a name."""
    if target.endpoint:
        return AddressKind.nested
    try:
        version = ip_address(target.address).version
    except ValueError:
        return AddressKind.name
    return AddressKind.ipv4 if version == 4 else AddressKind.ipv6  # noqa: PLR2004  IPv4


# -- one policy -----------------------------------------------------------------------------------


def problems(policy: TargetPolicy) -> list[str]:
    """Return what is wrong with a policy, a sentence each; none: it can be served."""
    found = [*_of_the_list(policy)]
    for target in policy.targets:
        found += [f'target "{target.name}": {problem}' for problem in _of_a_target(target)]
    match policy.method:
        case RoutingMethod.weighted:
            found += _of_weights(policy)
        case RoutingMethod.priority:
            found += _of_priorities(policy)
        case RoutingMethod.multivalue:
            found += _of_multivalue(policy)
        case RoutingMethod.subnet:
            found += _of_subnets(policy)
        case RoutingMethod.performance:
            found += _of_latencies(policy)
        case RoutingMethod.geographic:
            found += _of_places(policy)
    return found


def _of_the_list(policy: TargetPolicy) -> Iterator[str]:
    names = [target.name for target in policy.targets]
    if not names:
        yield "there are no targets; name one, or leave the routing method out"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'several targets are named "{name}"; give each a name of its own'
    kinds = {kind_of(target) for target in policy.targets}
    if AddressKind.name in kinds and kinds & _TWO_STACKS:
        yield (
            "some targets are addresses and some are DNS names; a CNAME can't stand beside "
            "addresses (RFC 1034 section 3.6.2): use one kind, and nest an endpoint for the other"
        )
    if policy.min_ready_children < 1:
        yield "min_ready_children is at least 1"


def _of_a_target(target: ExternalTarget) -> Iterator[str]:
    if bool(target.address) == bool(target.endpoint):
        yield "give it either an address or an endpoint"
    elif target.address:
        yield from _of_an_address(target.address)
    elif target.always_serve:
        yield "always_serve is for addresses; of an endpoint its own targets are probed"
    if target.port is not None and not 0 < target.port <= _LARGEST_PORT:
        yield f"port {target.port} does not exist; write one from 1 to {_LARGEST_PORT}"
    if not 0 <= target.weight <= LARGEST_WEIGHT:
        yield f"weight {target.weight} is not from 0 (drained) to {LARGEST_WEIGHT}"
    if not 0 < target.priority <= LOWEST_PRIORITY:
        yield f"priority {target.priority} is not from 1 (first) to {LOWEST_PRIORITY}"
    yield from _of_networks(target.networks)
    for place in target.places:
        if not _PLACE.fullmatch(place):
            yield f'"{place}" is no place; write "DE", "GEO-EU" or "{WORLD}"'


def _of_an_address(address: str) -> Iterator[str]:
    try:
        found = ip_address(address)
    except ValueError:
        if len(address) > _LONGEST_NAME or not _NAME.fullmatch(address):
            yield f'"{address}" is neither an IP address nor a DNS name'
        return
    if found.is_multicast or found.is_unspecified or "%" in address:
        yield f"{address} is no address that a client can connect to"


def _of_networks(networks: Iterable[str]) -> Iterator[str]:
    for text in networks:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            yield f'"{text}" is no network; write one such as "10.0.0.0/8"'
            continue
        if text.partition("/")[0].lower() != str(network.network_address):
            yield f'"{text}" is an address inside a network, or not its usual form; write {network}'


def _of_weights(policy: TargetPolicy) -> Iterator[str]:
    if policy.targets and not any(target.weight for target in policy.targets):
        yield "all targets have weight 0; give one a weight, or disable them"


def _of_priorities(policy: TargetPolicy) -> Iterator[str]:
    claims = ((target, target.priority) for target in policy.targets)
    for first, second, priority in _claimed_twice(claims):
        yield (
            f'targets "{first.name}" and "{second.name}" both have priority {priority}; '
            "number them 1, 2, 3"
        )


def _of_multivalue(policy: TargetPolicy) -> Iterator[str]:
    if not 0 < policy.max_answers <= MOST_ANSWERS:
        yield f"max_answers {policy.max_answers} is not from 1 to {MOST_ANSWERS}"
    for target in policy.targets:
        if kind_of(target) is AddressKind.name:
            yield f'target "{target.name}": multivalue needs addresses; CNAMEs stand alone'


def _of_subnets(policy: TargetPolicy) -> Iterator[str]:
    if policy.targets and not any(target.networks for target in policy.targets):
        yield "no target has networks, so the method has nothing to go by"
    claims = ((t, canonical(text)) for t in policy.targets for text in t.networks)
    for first, second, network in _claimed_twice(claims):
        yield f'network {network} is given twice, to "{first.name}" and to "{second.name}"'


def _of_latencies(policy: TargetPolicy) -> Iterator[str]:
    known = {region for row in policy.latencies.values() for region in row}
    for target in policy.targets:
        if not target.region:
            yield f'target "{target.name}": give it a region'
        elif target.region not in known:
            yield f'target "{target.name}": no latencies to its region "{target.region}" are known'
    yield from _of_networks(policy.client_regions)
    for region in sorted({*policy.client_regions.values()} - {*policy.latencies}):
        yield f'clients are in region "{region}", and no latencies from there are known'
    for origin, row in policy.latencies.items():
        for region, latency_ms in row.items():
            if not (isfinite(latency_ms) and latency_ms >= 0):
                yield f'the latency from "{origin}" to "{region}" is no number of milliseconds'
    if not policy.client_regions:
        yield "no networks of clients have a region, so the method has nothing to go by"


def _of_places(policy: TargetPolicy) -> Iterator[str]:
    for target in policy.targets:
        if not target.places:
            yield f'target "{target.name}": nobody is sent there; give it places, or "{WORLD}"'


def _claimed_twice(
    claims: Iterable[tuple[ExternalTarget, Claim]],
) -> Iterator[tuple[ExternalTarget, ExternalTarget, Claim]]:
    """Yield (first, second, claim) for claims that two targets have; IPv4 beside IPv6 is one place.

    A query asks for one of the two families, so they never compete.
    """
    seen: dict[Claim, list[ExternalTarget]] = {}
    for target, claim in claims:
        others = seen.setdefault(claim, [])
        kind = kind_of(target)
        rivals = (other for other in others if {kind, kind_of(other)} != _TWO_STACKS)
        rival = next(rivals, None)
        if rival is not None:
            yield rival, target, claim
        others.append(target)


def canonical(network: str) -> str:
    """Return the one spelling of a network; what is no network is returned as it is."""
    try:
        return str(ip_network(network, strict=False))
    except ValueError:
        return network


# -- endpoints within endpoints -------------------------------------------------------------------


def nesting_problems(policies: Mapping[str, TargetPolicy], others: Container[str]) -> list[str]:
    """Return what is wrong with how endpoints are nested, a sentence each.

    Args:
        policies: Endpoint -> its policy.
        others: Endpoints that have groups of their own, and no policy.
    """
    found = [*_of_children(policies, others)]
    rings = loops(policies)
    for ring in rings:
        way = " -> ".join((*ring, ring[0]))
        found.append(f"endpoints are nested in a circle, so none has an answer: {way}")
    if not rings:
        deep = [name for name, levels in _levels(policies).items() if levels > DEEPEST_NESTING]
        found += [f'endpoint "{n}": nests more than {DEEPEST_NESTING} levels' for n in sorted(deep)]
    return found


def loops(policies: Mapping[str, TargetPolicy]) -> list[tuple[str, ...]]:
    """Return circles of nesting, each from its first name in the alphabet, outer before inner.

    Each of them has to be cut somewhere. Circles that have a nesting in common with one of them may
    show only once that is cut.
    """
    edges = children(policies)
    found = []
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            ring: list[str] = error.args[1][:0:-1]  # it comes closed, and inner before outer
            start = ring.index(min(ring))
            found.append((*ring[start:], *ring[:start]))
            edges[found[-1][-1]].remove(found[-1][0])
        else:
            return sorted(found)


def children(policies: Mapping[str, TargetPolicy]) -> dict[str, list[str]]:
    """Return for each endpoint the endpoints that are nested in it, in the alphabet's order."""
    return {
        name: sorted({target.endpoint for target in policy.targets if target.endpoint})
        for name, policy in sorted(policies.items())
    }


def _of_children(policies: Mapping[str, TargetPolicy], others: Container[str]) -> Iterator[str]:
    for name, policy in policies.items():
        for target in policy.targets:
            child = policies.get(target.endpoint)
            said = f'endpoint "{name}", target "{target.name}"'
            if target.endpoint and child is None and target.endpoint not in others:
                yield f'{said}: there is no endpoint "{target.endpoint}"'
            if child is not None and len(child.targets) < policy.min_ready_children:
                yield (
                    f'{said}: "{target.endpoint}" has {len(child.targets)} targets and can never '
                    f"have {policy.min_ready_children} ready; lower min_ready_children"
                )


def _levels(policies: Mapping[str, TargetPolicy]) -> dict[str, int]:
    """Return how many endpoints deep each endpoint is, itself included."""
    edges = children(policies)
    levels: dict[str, int] = {}
    for name in TopologicalSorter(edges).static_order():
        levels[name] = 1 + max((levels[child] for child in edges.get(name, ())), default=0)
    return levels
