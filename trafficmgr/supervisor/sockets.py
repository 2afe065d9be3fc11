"""The listening sockets: one SO_REUSEPORT socket per slot and address, opened before any child.

SO_REUSEPORT would let us share a port with any other program of the same user without a word, so
each address is first bound once without it and closed (DESIGN 3). What remains is the moment
between the two binds.

All slots' TCP sockets listen at once. The kernel spreads connections over the sockets that listen;
a socket that began later would take over part of what others' handshakes had begun.
"""

import contextlib
import errno
import json
import socket
from dataclasses import dataclass

from trafficmgr.supervisor.spec import CannotStart, Spec

RECEIVE_BUFFER_BYTES = 1 << 20
"""Room for datagrams while a slot has no worker; the kernel may give less (net.core.rmem_max)."""

_FREE_PORT_ATTEMPTS = 16
"""Port 0 with two transports: a port free for one may be taken for the other."""

_DNS: tuple[str, ...] = ("dns-tcp", "dns-udp")
_HTTP: tuple[str, ...] = ("http",)
_HTTPS: tuple[str, ...] = ("https",)


@dataclass(frozen=True)
class Listener:
    """One socket of one slot. `kind` is dns-udp, dns-tcp, http or https."""

    kind: str
    host: str
    port: int
    sock: socket.socket


@dataclass(frozen=True)
class Slot:
    """A worker's numbered place: its sockets outlive it."""

    number: int
    listeners: tuple[Listener, ...]

    def fds(self) -> tuple[int, ...]:
        """Return the descriptors that this slot's workers inherit."""
        return tuple(listener.sock.fileno() for listener in self.listeners)

    def as_json(self) -> str:
        """Return the sockets as a worker is told them."""
        return json.dumps(
            [
                {"kind": each.kind, "host": each.host, "port": each.port, "fd": each.sock.fileno()}
                for each in self.listeners
            ]
        )

    def addresses(self, kind: str) -> list[str]:
        """Return the addresses of one kind, as people write them."""
        return [_shown(each.host, each.port) for each in self.listeners if each.kind == kind]

    def close(self) -> None:
        """Let go of the sockets; workers that have them keep theirs."""
        for listener in self.listeners:
            listener.sock.close()


class _InUse(CannotStart):
    """Somebody else has the address."""


def check_addresses(spec: Spec) -> None:
    """See whether every address could be bound, and leave no trace.

    Raises:
        CannotStart: One of them can't.
    """
    for key, host, port, kinds in _wanted(spec):
        _free_port(key, host, port, kinds)


def open_slots(spec: Spec) -> tuple[Slot, ...]:
    """Open the sockets of every slot.

    Raises:
        CannotStart: An address can't be bound; nothing stays open.
    """
    with contextlib.ExitStack() as undo:
        opened: list[list[Listener]] = [[] for _ in range(spec.slots)]
        for key, host, asked, kinds in _wanted(spec):
            port = _free_port(key, host, asked, kinds)
            for listeners in opened:
                for kind in kinds:
                    sock = undo.enter_context(_unbound(key, host, kind))
                    _bind(sock, key, host, port, kind, backlog=spec.backlog)
                    listeners.append(Listener(kind, host, port, sock))
        undo.pop_all()
    return tuple(Slot(number, tuple(listeners)) for number, listeners in enumerate(opened))


def _wanted(spec: Spec) -> list[tuple[str, str, int, tuple[str, ...]]]:
    """Return (config key, host, port, kinds) of each address.

    Raises:
        CannotStart: An address is listed twice; SO_REUSEPORT would let both have it.
    """
    wanted = [("dns", *address, _DNS) for address in spec.dns]
    wanted += [("http", *address, _HTTP) for address in spec.http]
    wanted += [("https", *address, _HTTPS) for address in spec.https]
    seen: dict[tuple[str, int], str] = {}
    for key, host, port, _ in wanted:
        if port and (host, port) in seen:
            raise CannotStart(
                f"{_shown(host, port)} is listed twice, in listen.{seen[host, port]} "
                f"and in listen.{key}; give one of them another port"
            )
        seen[host, port] = key
    return wanted


def _free_port(key: str, host: str, port: int, kinds: tuple[str, ...]) -> int:
    """Return the port, or for port 0 one that is free for all kinds, having seen that it is free.

    Raises:
        CannotStart: It can't be bound.
    """
    for _ in range(_FREE_PORT_ATTEMPTS if port == 0 else 0):
        with contextlib.suppress(_InUse):
            return _probe(key, host, port, kinds)
    return _probe(key, host, port, kinds)


def _probe(key: str, host: str, port: int, kinds: tuple[str, ...]) -> int:
    with contextlib.ExitStack() as held:
        for kind in kinds:
            sock = held.enter_context(_unbound(key, host, kind, is_shared=False))
            _bind(sock, key, host, port, kind, backlog=None)
            port = sock.getsockname()[1]
    return port


def _unbound(key: str, host: str, kind: str, *, is_shared: bool = True) -> socket.socket:
    """Return a fresh socket for one kind of listener; closed on exec, never blocking."""
    try:
        found = socket.getaddrinfo(host, 0, type=_type_of(kind), flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        raise CannotStart(
            f"listen.{key} wants an IP address and found {host!r}; write the address it stands for"
        ) from None
    family = found[0][0]
    sock = socket.socket(family, _type_of(kind) | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if kind != "dns-udp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT
    if is_shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sock


def _type_of(kind: str) -> socket.SocketKind:
    return socket.SOCK_DGRAM if kind == "dns-udp" else socket.SOCK_STREAM


def _bind(
    sock: socket.socket, key: str, host: str, port: int, kind: str, *, backlog: int | None
) -> None:
    """Bind, and unless it is a probe make ready to receive."""
    try:
        sock.bind(socket.getaddrinfo(host, port, type=sock.type, flags=socket.AI_NUMERICHOST)[0][4])
        if backlog is None:
            return
        if kind == "dns-udp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        else:
            sock.listen(backlog)
    except OSError as error:
        raise _refusal(error, key, host, port, kind) from error


def _refusal(error: OSError, key: str, host: str, port: int, kind: str) -> CannotStart:
    """Return the sentence that names who or what stands in the way."""
    where, transport = _shown(host, port), "UDP" if kind == "dns-udp" else "TCP"
    match error.errno:
        case errno.EADDRINUSE:
            return _InUse(
                f"{where} is in use by another program ({transport}); "
                f"give listen.{key} another port or stop it: `ss -lntup | grep :{port}`"
            )
        case errno.EADDRNOTAVAIL:
            return CannotStart(
                f"{where} can't be listened on: this machine has no address {host}; "
                f"give listen.{key} one that `ip address` shows"
            )
        case errno.EACCES | errno.EPERM:
            return CannotStart(
                f"{where} can't be listened on without privileges ({transport}); "
                f"give listen.{key} a port above 1023 or this program CAP_NET_BIND_SERVICE"
            )
        case _:
            return CannotStart(f"{where} can't be listened on ({transport}): {error.strerror}")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
