"""What `trafficmgr doctor` looks at: this machine, the engines, and what a config asks of them.

Nothing is changed and nothing stays behind: ports are bound for a moment, a pool is locked for a
moment, secrets are read and forgotten. A service that runs on this config has its own ports and its
own pool, of course; that is no problem.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal

from trafficmgr.admin.needs import WAY_ROUND, unmet
from trafficmgr.cli.supervision import supervisor_of
from trafficmgr.config.settings import Address, RuntimeSettings, Settings
from trafficmgr.controller.secrets import SecretStore
from trafficmgr.runtimes.contract import RuntimeFailure
from trafficmgr.runtimes.embedded import pool

GapsOf = Callable[[Settings], Mapping[str, str]]
"""Opens the engine of a config for a moment and returns its gaps.

Raises RuntimeFailure when it does not answer.
"""

KINDS: tuple[Literal["embedded", "docker"], ...] = ("embedded", "docker")
"""Every runtime that a config can name."""

ASIDE = "127.255.255.252/30"
"""Where the embedded runtime is opened: a service that runs holds the lock on its own pool."""

ROUTES = Path("/proc/net/route")
INTERFACES = Path("/sys/class/net")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what, whether it is well, and a sentence or less on it."""

    what: str
    is_ok: bool
    says: str


@dataclass(frozen=True)
class Engine:
    """What one runtime can't do here; `trouble` is why it can't be used at all ("": it can)."""

    gaps: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True)
class Examination:
    """All that was found. `missing` is (endpoint, behaviour, why not)."""

    checks: tuple[Check, ...]
    engines: Mapping[str, Engine]
    missing: tuple[tuple[str, str, str], ...]

    @property
    def is_ok(self) -> bool:
        """Whether the config can have all that it needs."""
        is_missed = any(behaviour not in WAY_ROUND for _, behaviour, _ in self.missing)
        return all(check.is_ok for check in self.checks) and not is_missed


def examined(settings: Settings, gaps_of: GapsOf) -> Examination:
    """Look at everything that a config needs, and at what every runtime could do here."""
    chosen = settings.runtime.kind
    engines = {str(chosen): _engine(settings, gaps_of)}
    for kind in KINDS:
        if kind != chosen:
            other = replace(settings, runtime=RuntimeSettings(kind=kind))
            engines[kind] = _engine(other, gaps_of)
    checks = (
        _state_dir(settings.state_dir),
        *_listeners(settings),
        Check(
            f"runtime {chosen}", not engines[chosen].trouble, engines[chosen].trouble or "usable"
        ),
        _address_pool(settings),
        *_secrets(settings),
    )
    missing = tuple(
        (name, behaviour, why_not)
        for name, endpoint in sorted(settings.endpoints.items())
        for behaviour, why_not in unmet(endpoint.settings.template, engines[chosen].gaps)
    )
    return Examination(checks, engines, missing)


def _engine(settings: Settings, gaps_of: GapsOf) -> Engine:
    if settings.runtime.kind == "embedded":
        settings = replace(settings, address_pool=ASIDE)
    try:
        return Engine(gaps=gaps_of(settings))
    except RuntimeFailure as failure:
        return Engine(trouble=str(failure))


# -- this machine ---------------------------------------------------------------------------------


def _state_dir(path: Path) -> Check:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    is_ok = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    says = "writable" if is_ok else f"{there} can't be written to; change its owner, or the key"
    return Check(
        f"state_dir {path}", is_ok, says if there == path else f"{says} (is made by `run`)"
    )


def _listeners(settings: Settings) -> Iterator[Check]:
    running = supervisor_of(settings.state_dir)
    owner = "" if running is None else f"the service that runs (pid {running.pid})"
    for address in settings.listen_dns:
        yield _listener("dns", address, (socket.SOCK_DGRAM, socket.SOCK_STREAM), owner)
    for address in settings.listen_http:
        yield _listener("http", address, (socket.SOCK_STREAM,), owner)
    for address in settings.listen_https:
        yield _listener("https", address, (socket.SOCK_STREAM,), owner)


def _listener(
    what: str, address: Address, kinds: tuple[socket.SocketKind, ...], owner: str
) -> Check:
    if owner:
        return Check(f"{what} {address}", is_ok=True, says=f"belongs to {owner}")
    try:
        with ExitStack() as held:
            for kind in kinds:
                _bind(held, address, kind)
    except OSError as error:
        says = f"can't be listened at: {error.strerror}; free it, or write another"
        return Check(f"{what} {address}", is_ok=False, says=says)
    return Check(f"{what} {address}", is_ok=True, says="free")


def _bind(held: ExitStack, address: Address, kind: socket.SocketKind) -> None:
    """Bind, as the supervisor does first: without SO_REUSEPORT, so that others are noticed."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    one = held.enter_context(socket.socket(family, kind))
    if kind == socket.SOCK_STREAM:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address.host, address.port))


def _address_pool(settings: Settings) -> Check:
    what = f"address_pool {settings.address_pool}"
    if settings.runtime.kind == "docker":
        taken = _route_into(IPv4Network(settings.address_pool))
        says = f"the host reaches addresses of it by {taken}; write another" if taken else "free"
        return Check(what, not taken, says)
    if supervisor_of(settings.state_dir) is not None:
        return Check(what, is_ok=True, says="belongs to the service that runs")
    try:
        with pool.locked(settings.address_pool):
            return Check(what, is_ok=True, says="free")
    except RuntimeFailure as failure:
        return Check(what, is_ok=False, says=str(failure))


def _route_into(pool_: IPv4Network) -> str:
    """Return the interface of a route into the pool, or "".

    The default route leads everywhere, and bridges are where engines put their own networks: both
    don't count.
    """
    for line in ROUTES.read_text().splitlines()[1:]:
        interface, destination, *_, mask = line.split()[:8]
        network = IPv4Network((_address(destination), str(_address(mask))), strict=False)
        is_bridge = (INTERFACES / interface / "bridge").exists()
        if network.prefixlen and network.overlaps(pool_) and not is_bridge:
            return interface
    return ""


def _address(little_endian: str) -> IPv4Address:
    """Return an address as /proc/net/route has it: in hex, in the byte order of the machine."""
    return IPv4Address(socket.htonl(int(little_endian, 16)))


def _secrets(settings: Settings) -> Iterator[Check]:
    if not settings.secrets:
        return
    unreadable = list(SecretStore(settings.secrets).unreadable())
    if not unreadable:
        yield Check(f"secrets ({len(settings.secrets)})", is_ok=True, says="readable for this user")
    yield from (Check("secrets", is_ok=False, says=sentence) for sentence in unreadable)
