"""What must hold between the parts of a file: addresses, zones, the pool, what is published.

What must hold inside a group is in `checks_group`; what its gates and hooks need in `checks_gates`;
between hosts in `checks_hosts`; for the proxy and its certificates in `checks_http`.

Each check reads a file whose shape is right, and yields faults with a way to act. `broken` has
the top-level keys that had to be left out because their shape is wrong: a check that needs one of
them keeps quiet, so that nobody is sent after a consequence of an error that is already shown.
"""

import ipaddress
from collections.abc import Iterator

from trafficmgr.config import checks_gates, checks_group, checks_hosts, checks_http, pools
from trafficmgr.config.document import Loc
from trafficmgr.config.settings import Address
from trafficmgr.config.shape import EndpointShape, FileShape, ZoneShape
from trafficmgr.config.wording import Fault

KINDS = ("dns", "http", "https")
"""Keys of `listen`."""


def faults_of(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    """Yield everything that does not fit together."""
    yield from _listeners(file, broken)
    yield from _zones(file.zones)
    yield from _registries(file)
    if not file.endpoints and "endpoints" not in broken:
        yield Fault(("endpoints",), "there is no endpoint", "add one", on_key=True)
    for name, endpoint in file.endpoints.items():
        secrets = None if "secrets" in broken else tuple(file.secrets)
        yield from checks_group.faults_of(name, endpoint, secrets)
        yield from checks_gates.faults_of(name, endpoint)
        yield from _published(name, endpoint, file, broken)
    yield from checks_http.faults_of(file, broken)
    yield from checks_hosts.faults_of(file, broken)
    if not broken & {"address_pool", "runtime"}:
        yield from _pool(file)


def pool_of(file: FileShape) -> str:
    """Return the network that groups get their addresses from."""
    return str(pools.network_of(file.runtime.kind, file.address_pool))


def advertised(file: FileShape) -> tuple[str, ...]:
    """Return what DNS answers for the proxy, each address once."""
    listeners = [address.host for address in (*file.listen.http, *file.listen.https)]
    return tuple(dict.fromkeys(file.advertise or listeners))


# -- the file -------------------------------------------------------------------------------------


def _listeners(file: FileShape, broken: frozenset[str]) -> Iterator[Fault]:
    seen: set[Address] = set()
    for kind in KINDS:
        addresses: list[Address] = getattr(file.listen, kind)
        for index, address in enumerate(addresses):
            if address in seen:
                text = f"{address} is listened at twice (DNS needs TCP, too)"
                yield Fault(("listen", kind, index), text, "give one of them another port")
            seen.add(address)
    wild = _first_wildcard(file)
    if wild is not None and not file.advertise and "advertise" not in broken:
        loc, address = wild
        text = f"{address} is every address, so DNS can't tell which to answer"
        yield Fault(loc, text, "add advertise: with the addresses that clients reach")
    for index, host in enumerate(file.advertise):
        if ipaddress.ip_address(host).is_unspecified:
            text = f"{host} is no address that a client can reach"
            yield Fault(("advertise", index), text, "write the address that clients reach")


def _first_wildcard(file: FileShape) -> tuple[Loc, Address] | None:
    """Return the first address of the proxy that stands for all of the machine's."""
    for kind in ("http", "https"):
        addresses: list[Address] = getattr(file.listen, kind)
        for index, address in enumerate(addresses):
            if ipaddress.ip_address(address.host).is_unspecified:
                return ("listen", kind, index), address
    return None


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


def _pool(file: FileShape) -> Iterator[Fault]:
    network = pools.network_of(file.runtime.kind, file.address_pool)
    if misplaced := _misplaced_pool(file):
        yield misplaced
        return
    needed = sum(e.group.replicas * e.max_revisions for e in file.endpoints.values())
    usable = pools.usable(network)
    if needed > usable:
        text = f"address_pool has {usable} addresses, but {needed} groups may exist at once"
        hint = "write a larger network, or lower replicas or max_revisions"
        yield Fault(("address_pool",), text, hint)
    for kind in KINDS:
        addresses: list[Address] = getattr(file.listen, kind)
        for index, address in enumerate(addresses):
            if ipaddress.ip_address(address.host) in network:
                text = f"{address} lies in address_pool, where groups get their addresses"
                yield Fault(("listen", kind, index), text, "listen at an address outside of it")


def _misplaced_pool(file: FileShape) -> Fault | None:
    """Return what is wrong with the place of the pool: on loopback only processes meet."""
    kind, written = file.runtime.kind, file.address_pool
    if written is None or pools.is_loopback(written) == (kind == "embedded"):
        return None
    hint = f"write {pools.DEFAULTS[kind]}"
    if kind == "embedded":
        text = "address_pool is not on loopback, where the embedded runtime puts its groups"
        return Fault(("address_pool",), text, f"{hint}, or runtime: docker")
    text = "address_pool is on loopback, which no two containers of Docker share"
    return Fault(("address_pool",), text, f"{hint}, or leave it out")


# -- publishing -----------------------------------------------------------------------------------


def _published(
    name: str, endpoint: EndpointShape, file: FileShape, broken: frozenset[str]
) -> Iterator[Fault]:
    """Yield what keeps clients from reaching the addresses that DNS would answer."""
    if "listen" in broken:
        return
    loc: Loc = ("endpoints", name, "publish")
    if endpoint.publish == "proxy":
        if not file.listen.http and not file.listen.https:
            text = f'endpoint "{name}" is served by the proxy, which listens nowhere'
            yield Fault(loc, text, checks_http.HTTP_HINT, on_key=True)
        return
    if not file.listen.dns:
        text = f'endpoint "{name}" publishes its groups, but DNS is answered nowhere'
        yield Fault(loc, text, 'add listen: {dns: ["127.0.0.1:5300"]}')
    if file.runtime.kind != "embedded" or "runtime" in broken:
        return
    away = [a for a in file.listen.dns if not ipaddress.ip_address(a.host).is_loopback]
    if away:
        text = (
            f'endpoint "{name}" publishes loopback addresses, but {away[0]} answers DNS'
            " for other machines, which can't reach them"
        )
        yield Fault(loc, text, "write publish: proxy, or let DNS listen on loopback only")
