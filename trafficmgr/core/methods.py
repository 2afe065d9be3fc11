"""Which of an endpoint's targets a client gets.

Four steps, each a pure function of the one before:

1. What probes found of a target (`TargetHealth`) and what operators said become its status, by the
   rules and names of Azure Traffic Manager's "endpoint monitor status", which users know.
2. The statuses of an endpoint's targets become its own (`EndpointHealth`), which is what a nested
   target's status follows from.
3. `usable`: Online and CheckingEndpoint are served. If nobody is, everybody Degraded is (promise
   9): an answer that may work beats none. Disabled, Inactive and Stopped are never served.
4. `Chooser.choose`: the method picks among the usable ones.

Rules of the methods:

* weighted: one, by weight. 0 is exactly none and all of the weight exactly all.
* priority: the first, by number.
* multivalue: as many as an answer holds; each is first equally often.
* subnet, geographic: the client's network or place has its target, whatever its health. If that is
  not usable there is no answer: who must not leave a country is not sent abroad by a failure (Azure
  does the same). To fail over, nest an endpoint there.
* performance: the nearest usable one; a client of no known region gets what weighted would give.
* Where several are left one is picked by weight. Weight 0 is drained: it gets nothing while the
  method can choose somebody else.

What the client had to do with it is the answer's scope (`core.regions`, RFC 7871).
"""

from collections.abc import Collection, Container, Iterable, Mapping
from enum import StrEnum
from graphlib import TopologicalSorter
from math import inf
from typing import assert_never

from trafficmgr.core.noun import Noun
from trafficmgr.core.regions import ClientPlace, NetworkTable
from trafficmgr.core.targets import (
    CONTINENT_PREFIX,
    WORLD,
    AddressKind,
    ExternalTarget,
    RoutingMethod,
    TargetPolicy,
    canonical,
    children,
    kind_of,
)

# -- statuses -------------------------------------------------------------------------------------


class TargetHealth(StrEnum):
    """What probes found; `checking` until they have found anything."""

    checking = "checking"
    up = "up"
    down = "down"


class TargetStatus(StrEnum):
    """A target as operators see it."""

    disabled = "Disabled"
    inactive = "Inactive"
    online = "Online"
    degraded = "Degraded"
    stopped = "Stopped"
    checking_endpoint = "CheckingEndpoint"


class EndpointStatus(StrEnum):
    """An endpoint as operators see it."""

    disabled = "Disabled"
    degraded = "Degraded"
    online = "Online"
    checking_endpoints = "CheckingEndpoints"
    inactive = "Inactive"


class EndpointHealth(Noun):
    """An endpoint's status, and what an endpoint that nests it must know.

    Attributes:
        status: By its targets.
        online: How many of its targets are Online. For an endpoint with groups: its ready groups.
        checking: How many are CheckingEndpoint.
        targets: Target -> status; empty for an endpoint with groups.
    """

    status: EndpointStatus
    online: int = 0
    checking: int = 0
    targets: dict[str, TargetStatus] = {}


_BY_PROBES = {
    TargetHealth.checking: TargetStatus.checking_endpoint,
    TargetHealth.up: TargetStatus.online,
    TargetHealth.down: TargetStatus.degraded,
}


def target_status(
    target: ExternalTarget,
    health: TargetHealth = TargetHealth.checking,
    *,
    is_endpoint_enabled: bool = True,
    child: EndpointHealth | None = None,
    min_ready_children: int = 1,
) -> TargetStatus:
    """Return a target's status.

    Args:
        target: The target.
        health: What probes found; not looked at for nested ones and for `always_serve`.
        is_endpoint_enabled: Whether the endpoint that it is a target of is enabled.
        child: Nested: what is known of its endpoint. None is nothing: unknown is no failure.
        min_ready_children: Nested: how many of the child's targets make it Online.
    """
    if not target.is_enabled:
        return TargetStatus.disabled
    if not is_endpoint_enabled:
        return TargetStatus.inactive
    if target.endpoint:
        return _nested_status(child, min_ready_children)
    return TargetStatus.online if target.always_serve else _BY_PROBES[health]


def _nested_status(child: EndpointHealth | None, min_ready_children: int) -> TargetStatus:
    """Return the status of a nested target, as Azure's page on nested profiles has it."""
    if child is None:
        return TargetStatus.checking_endpoint
    if child.status in {EndpointStatus.disabled, EndpointStatus.inactive}:
        return TargetStatus.stopped
    if child.online >= min_ready_children:
        return TargetStatus.online
    if child.online + child.checking >= min_ready_children:
        return TargetStatus.checking_endpoint
    return TargetStatus.degraded


def endpoint_health(
    targets: Mapping[str, TargetStatus], *, is_enabled: bool = True
) -> EndpointHealth:
    """Return an endpoint's status by those of its targets; one Degraded makes it Degraded."""
    found = [*targets.values()]
    if not is_enabled:
        status = EndpointStatus.disabled
    elif TargetStatus.degraded in found:
        status = EndpointStatus.degraded
    elif TargetStatus.online in found:
        status = EndpointStatus.online
    elif TargetStatus.checking_endpoint in found:
        status = EndpointStatus.checking_endpoints
    else:
        status = EndpointStatus.inactive
    return EndpointHealth(
        status=status,
        online=found.count(TargetStatus.online),
        checking=found.count(TargetStatus.checking_endpoint),
        targets={**targets},
    )


def healths_of(
    policies: Mapping[str, TargetPolicy],
    observed: Mapping[str, Mapping[str, TargetHealth]],
    *,
    disabled: Container[str] = (),
    others: Mapping[str, EndpointHealth] | None = None,
) -> dict[str, EndpointHealth]:
    """Return the health of every endpoint with a policy, inner ones first.

    Args:
        policies: Endpoint -> its policy.
        observed: Endpoint -> target -> what probes found; what is missing is `checking`.
        disabled: Endpoints that operators have disabled.
        others: Health of endpoints that have groups of their own; they may be nested.

    Raises:
        ValueError: Endpoints are nested in a circle (`targets.loops`).
    """
    known = {**(others or {})}
    for name in TopologicalSorter(children(policies)).static_order():
        if name not in policies:
            continue
        policy, is_enabled = policies[name], name not in disabled
        statuses = {
            target.name: target_status(
                target,
                observed.get(name, {}).get(target.name, TargetHealth.checking),
                is_endpoint_enabled=is_enabled,
                child=known.get(target.endpoint),
                min_ready_children=policy.min_ready_children,
            )
            for target in policy.targets
        }
        known[name] = endpoint_health(statuses, is_enabled=is_enabled)
    return {name: known[name] for name in policies}


# -- who may be served ----------------------------------------------------------------------------


def usable(
    policy: TargetPolicy,
    statuses: Mapping[str, TargetStatus],
    kinds: Container[AddressKind] = frozenset(AddressKind),
) -> tuple[ExternalTarget, ...]:
    """Return the targets that may be served, in the policy's order.

    If all of them are Degraded, see `EndpointHealth`: nobody is online or checking.

    Args:
        policy: The endpoint's policy.
        statuses: Target -> status; a target that is missing is CheckingEndpoint.
        kinds: What can answer the query. Who is asked for AAAA leaves IPv4 out here, so that
            "all are degraded" is said of those that could answer.
    """
    could = [
        (target, statuses.get(target.name, TargetStatus.checking_endpoint))
        for target in policy.targets
        if target.is_enabled and kind_of(target) in kinds
    ]
    served = {TargetStatus.online, TargetStatus.checking_endpoint}
    return tuple(target for target, status in could if status in served) or tuple(
        target for target, status in could if status is TargetStatus.degraded
    )


# -- who is chosen --------------------------------------------------------------------------------


class Choice(Noun):
    """What a client gets.

    Attributes:
        targets: In the order of the answer. None: NXDOMAIN or NODATA, as the caller sees fit.
        scope: Prefix length within which every client gets the same decision (RFC 7871); 0 if the
            method does not look at clients.
        point: For a nested target: the point by which its own endpoint chooses. With the parent's
            own point it would see only the part of the unit interval that leads there.
        turn: For nested targets: the turn of their own endpoints, for the same reason.
    """

    targets: tuple[ExternalTarget, ...] = ()
    scope: int = 0
    point: float = 0.0
    turn: int = 0


class Chooser:
    """A policy, compiled: what it says about networks and places is laid out once.

    It knows nothing of health, so it lives as long as its policy.

    Raises:
        ValueError: A network can't be read (`targets.problems` says which).
    """

    __slots__ = ("_claims", "_everywhere", "_places", "_regions", "policy")

    def __init__(self, policy: TargetPolicy) -> None:
        self.policy = policy
        by_subnet = policy.targets if policy.method is RoutingMethod.subnet else ()
        claims = _claimed((c, t.name) for t in by_subnet for c in map(canonical, t.networks))
        self._claims = NetworkTable(claims.items())
        is_by_latency = policy.method is RoutingMethod.performance
        self._regions = NetworkTable(policy.client_regions.items() if is_by_latency else ())
        self._places = _claimed((place, t.name) for t in policy.targets for place in t.places)
        self._everywhere = frozenset(t.name for t in policy.targets if not t.networks)

    def choose(
        self, usable: tuple[ExternalTarget, ...], client: ClientPlace, *, point: float, turn: int
    ) -> Choice:
        """Return what a client gets of the usable targets.

        Args:
            usable: By `usable`.
            client: What is known of the client.
            point: A number in [0, 1), as for `routing.pick`.
            turn: How many were served before.
        """
        scope = 0
        left: Collection[ExternalTarget]
        match self.policy.method:
            case RoutingMethod.weighted:
                left = usable
            case RoutingMethod.priority:
                left = _first(_not_drained(usable))
            case RoutingMethod.multivalue:
                return _in_turn(_not_drained(usable), self.policy.max_answers, point, turn)
            case RoutingMethod.subnet:
                names, scope = self._claims.find(client.address, client.prefix_len)
                left = _named(usable, self._everywhere if names is None else names)
            case RoutingMethod.performance:
                region, scope = self._regions.find(client.address, client.prefix_len)
                row = {} if region is None else self.policy.latencies.get(region, {})
                left = _nearest(_not_drained(usable), row)
            case RoutingMethod.geographic:
                scope = client.place_len or client.prefix_len
                left = _named(usable, self._of_place(client))
            case _ as never:
                assert_never(never)
        return _by_weight(left, scope, point, turn)

    def _of_place(self, client: ClientPlace) -> frozenset[str]:
        """Return the targets of the smallest place that holds the client and has any."""
        continent = CONTINENT_PREFIX + client.continent
        for place in (client.country, continent, WORLD):
            if place in self._places:
                return self._places[place]
        return frozenset()


def _claimed(claims: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """Return claim -> names of the targets that have it."""
    found: dict[str, set[str]] = {}
    for claim, name in claims:
        found.setdefault(claim, set()).add(name)
    return {claim: frozenset(names) for claim, names in found.items()}


def _named(usable: Iterable[ExternalTarget], names: Container[str]) -> list[ExternalTarget]:
    return [target for target in usable if target.name in names]


def _not_drained(usable: tuple[ExternalTarget, ...]) -> tuple[ExternalTarget, ...]:
    return tuple(target for target in usable if target.weight) or usable


def _first(usable: Collection[ExternalTarget]) -> list[ExternalTarget]:
    number = min((target.priority for target in usable), default=0)
    return [target for target in usable if target.priority == number]


def _nearest(usable: Collection[ExternalTarget], row: Mapping[str, float]) -> list[ExternalTarget]:
    """Return those with the smallest latency; without a row all are equally far."""
    latencies_ms = [row.get(target.region, inf) for target in usable]
    nearest_ms = min(latencies_ms, default=inf)
    return [target for target, ms in zip(usable, latencies_ms, strict=True) if ms == nearest_ms]


def _in_turn(usable: tuple[ExternalTarget, ...], most: int, point: float, turn: int) -> Choice:
    if not usable:
        return Choice()
    rounds, start = divmod(turn, len(usable))
    answers = (usable[start:] + usable[:start])[:most]
    return Choice(targets=answers, point=point, turn=rounds)


def _by_weight(left: Collection[ExternalTarget], scope: int, point: float, turn: int) -> Choice:
    """Return the target whose part of the unit interval the point falls into.

    If all are drained they are equals. The mark is a float and weights are whole, so taking one
    from the other is exact; it is below their sum for every point below 1.
    """
    total = sum(target.weight for target in left)
    mark = point * (total or len(left))
    for target in left:
        weight = target.weight if total else 1
        if mark < weight:
            return Choice(targets=(target,), scope=scope, point=mark / weight, turn=turn)
        mark -= weight
    return Choice(scope=scope, point=point, turn=turn)
