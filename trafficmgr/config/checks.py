"""What must hold between the parts of a file: ports, hosts and zones, addresses, the pool.

Each check reads a file whose shape is right, and yields faults with a way to act. `broken` has
the top-level keys that had to be left out because their shape is wrong: a check that needs one of
them keeps quiet, so that nobody is sent after a consequence of an error that is already shown.
"""

import ipaddress
from collections.abc import Iterator

from trafficmgr.config.document import Loc
from trafficmgr.config.settings import Address
from trafficmgr.config.shape import ContainerShape, EndpointShape, FileShape, ProbeShape, ZoneShape
from trafficmgr.config.wording import Fault
from trafficmgr.core.routing import PREVIEW_PREFIX


def faults_of(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    """Yield everything that does not fit together."""
    yield from _listeners(file, broken)
    yield from _zones(file.zones)
    yield from _registries(file)
    if not file.endpoints and "endpoints" not in broken:
        yield Fault(("endpoints",), "there is no endpoint", "add one", on_key=True)
    for name, endpoint in file.endpoints.items():
        yield from _endpoint(name, endpoint)
        yield from _published(name, endpoint, file, broken)
    yield from _hosts(file, broken)
    if "address_pool" not in broken:
        yield from _pool(file)


def fronted_port(endpoint: EndpointShape) -> int:
    """Return the port that gets the traffic; 0 if that can't be said."""
    declared = _declared(endpoint)
    return endpoint.port or (declared[0] if len(declared) == 1 else 0)


def advertised(file: FileShape) -> tuple[str, ...]:
    """Return what DNS answers for the proxy, each address once."""
    listeners = [address.host for address in file.listen.http]
    return tuple(dict.fromkeys(file.advertise or listeners))


# -- the file -------------------------------------------------------------------------------------


def _listeners(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    seen: set[Address] = set()
    for kind in ("dns", "http"):
        addresses: list[Address] = getattr(file.listen, kind)
        for index, address in enumerate(addresses):
            if address in seen:
                text = f"{address} is listened at twice (DNS needs TCP, too)"
                yield Fault(("listen", kind, index), text, "give one of them another port")
            seen.add(address)
    wild = [i for i, address in enumerate(file.listen.http) if _is_wildcard(address)]
    if wild and not file.advertise and "advertise" not in broken:
        text = f"{file.listen.http[wild[0]]} is every address, so DNS can't tell which to answer"
        hint = "add advertise: with the addresses that clients reach"
        yield Fault(("listen", "http", wild[0]), text, hint)
    for index, host in enumerate(file.advertise):
        if ipaddress.ip_address(host).is_unspecified:
            text = f"{host} is no address that a client can reach"
            yield Fault(("advertise", index), text, "write the address that clients reach")


def _zones(zones: list[ZoneShape]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, zone in enumerate(zones):
        if first.setdefault(zone.name, index) != index:
            text = f'zone "{zone.name}" is there twice'
            yield Fault(("zones", index, "name"), text, "remove one of them")


def _registries(file: FileShape) -> Iterator[Fault]:
    for name, registry in file.registries.items():
        if registry.username and not registry.password_file:
            text = f'registry "{name}" has a user without a password'
            hint = "add password_file: with the path of a file that holds it"
            yield Fault(("registries", name, "username"), text, hint)
        if registry.password_file and not registry.username:
            text = f'registry "{name}" has a password without a user'
            yield Fault(("registries", name, "password_file"), text, "add username:")


def _hosts(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    owner: dict[str, str] = {}
    for name, endpoint in file.endpoints.items():
        for index, host in enumerate(endpoint.hosts):
            loc: Loc = ("endpoints", name, "hosts", index)
            if host in owner:
                text = f'host "{host}" of endpoint "{name}" already leads to "{owner[host]}"'
                yield Fault(loc, text, "a host leads to one endpoint: remove one of them")
            owner.setdefault(host, name)
            if endpoint.publish == "groups" and not broken & {"zones"}:
                yield from _zoneless(loc, host, file.zones)
    yield from _previews(file, owner)


def _previews(file: FileShape, owner: dict[str, str]) -> Iterator[Fault]:
    """Yield hosts that are named as the preview of another is."""
    for name, endpoint in file.endpoints.items():
        for index, host in enumerate(endpoint.hosts):
            previewed = host.removeprefix(PREVIEW_PREFIX)
            if previewed != host and previewed in owner:
                text = (
                    f'host "{host}" of endpoint "{name}" is the name at which a new revision of'
                    f' "{owner[previewed]}" is previewed'
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


def _pool(file: FileShape) -> Iterator[Fault]:
    network = ipaddress.IPv4Network(file.address_pool)
    needed = sum(e.group.replicas * e.max_revisions for e in file.endpoints.values())
    usable = network.num_addresses - 2  # the first and the last are no host addresses
    if needed > usable:
        text = f"address_pool has {usable} addresses, but {needed} groups may exist at once"
        hint = "write a larger network, or lower replicas or max_revisions"
        yield Fault(("address_pool",), text, hint)
    for kind in ("dns", "http"):
        addresses: list[Address] = getattr(file.listen, kind)
        for index, address in enumerate(addresses):
            if ipaddress.ip_address(address.host) in network:
                text = f"{address} lies in address_pool, where groups get their addresses"
                yield Fault(("listen", kind, index), text, "listen at an address outside of it")


# -- one endpoint ---------------------------------------------------------------------------------


def _endpoint(name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    loc: Loc = ("endpoints", name)
    containers = endpoint.group.containers
    inside: Loc = (*loc, "group", "containers")
    if len(containers) != 1:
        yield _not_one_container(inside, name, len(containers))
    for index, container in enumerate(containers):
        yield from _container((*inside, index), container)
    if containers:
        yield from _port(loc, name, endpoint)


def _not_one_container(loc: Loc, name: str, count: int) -> Fault:
    if not count:
        return Fault(loc, f'group of endpoint "{name}" has no container', "add one")
    text = f'group of endpoint "{name}" has {count} containers'
    hint = "several come with the Docker runtime; not in this version: leave one"
    return Fault((*loc, 1), text, hint)


def _port(loc: Loc, name: str, endpoint: EndpointShape) -> Iterator[Fault]:
    declared = _declared(endpoint)
    ports: Loc = (*loc, "group", "containers", 0, "ports")
    if not declared:
        text = f'endpoint "{name}" has no port: its container declares none'
        yield Fault(ports, text, "add ports: [8080] to the container", on_key=True)
    elif endpoint.port is not None and endpoint.port not in declared:
        text = f'"port" in endpoint "{name}" is {endpoint.port}, which no container declares'
        yield Fault((*loc, "port"), text, f"write {' or '.join(map(str, declared))}")
    elif not fronted_port(endpoint):
        text = f'endpoint "{name}" does not say which of its ports gets the traffic'
        yield Fault(ports, text, f"add port: {declared[0]} to the endpoint")


def _container(loc: Loc, container: ContainerShape) -> Iterator[Fault]:
    for index, port in enumerate(container.ports):
        if port in container.ports[:index]:
            text = f'port {port} of container "{container.name}" is there twice'
            yield Fault((*loc, "ports", index), text, "remove one of them")
    if container.readiness:
        yield from _probe((*loc, "readiness"), container, container.readiness)


def _probe(loc: Loc, container: ContainerShape, probe: ProbeShape) -> Iterator[Fault]:
    of = f'"readiness" of container "{container.name}"'
    if (probe.http is None) == (probe.tcp is None):
        both = "has both http and tcp" if probe.http else "does not say what to look at"
        hint = "leave one of them" if probe.http else "add http: {path: /healthz} or tcp: {}"
        yield Fault(loc, f"{of} {both}", hint, on_key=True)
    for kind, check in (("http", probe.http), ("tcp", probe.tcp)):
        if check and check.port is None and len(container.ports) > 1:
            text = f"{of} does not say which port to look at"
            yield Fault((*loc, kind), text, f"add port: {container.ports[0]}", on_key=True)


def _published(
    name: str, endpoint: EndpointShape, file: FileShape, broken: frozenset[str]
) -> Iterator[Fault]:
    """Yield what keeps clients from reaching the addresses that DNS would answer."""
    if "listen" in broken:
        return
    loc: Loc = ("endpoints", name, "publish")
    if endpoint.publish == "proxy":
        if not file.listen.http:
            text = f'endpoint "{name}" is served by the proxy, which listens nowhere'
            yield Fault(loc, text, 'add listen: {http: ["127.0.0.1:8080"]}', on_key=True)
        return
    if not file.listen.dns:
        text = f'endpoint "{name}" publishes its groups, but DNS is answered nowhere'
        yield Fault(loc, text, 'add listen: {dns: ["127.0.0.1:5300"]}')
    away = [a for a in file.listen.dns if not ipaddress.ip_address(a.host).is_loopback]
    if away:
        text = (
            f'endpoint "{name}" publishes loopback addresses, but {away[0]} answers DNS'
            " for other machines, which can't reach them"
        )
        yield Fault(loc, text, "write publish: proxy, or let DNS listen on loopback only")


def _is_wildcard(address: Address) -> bool:
    return ipaddress.ip_address(address.host).is_unspecified


def _declared(endpoint: EndpointShape) -> list[int]:
    ports = [port for container in endpoint.group.containers for port in container.ports]
    return list(dict.fromkeys(ports))
