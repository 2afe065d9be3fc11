"""Who a request comes from, and the field lines that tell its group so.

A stranger's own claims (X-Forwarded-*, Forwarded, X-Real-IP, X-Request-Id) are dropped, and what
this worker knows takes their place: nobody can pass for somebody else. A peer whose address is in
`trusted_proxies` is believed instead, and what it says is added to:

* `X-Forwarded-For` and `Forwarded` (RFC 7239) get the peer's address appended.
* `X-Forwarded-Proto`, `-Host`, `-Port` and `X-Request-Id` are passed on as they are.
* The client is the last address in `X-Forwarded-For` that is not a trusted proxy's; without that
  field, the last one in `Forwarded`, or `X-Real-IP`. It is what affinity and the access log go by,
  and what `X-Real-IP` says.

Whether a peer is trusted is decided once per connection. Lines that stay the same are made once per
connection and host; the request's name is all that changes from one request to the next.
"""

import re
import secrets
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from trafficmgr.wire.http_request import Request

Claims = Mapping[bytes, bytes]
"""What a request says of its client, by lower-case field name."""

_PSEUDONYM = b"trafficmgr"
"""Whom Via names (RFC 9110 section 7.6.3); the machine's name is nobody's business."""

_KNOWN_LIMIT = 4096
"""Addresses that are remembered as trusted or not; more than this are not proxies."""

_SCHEMES = frozenset({b"http", b"https"})
_NO_CLAIMS: Claims = {}
_FORWARDED_FOR = re.compile(r'(?:^|[;,])\s*for=(?:"([^"]*)"|([^;,"\s]*))', re.IGNORECASE)
_FORWARDED_PROTO = re.compile(rb'(?:^|[;,])\s*proto="?(https?)\b', re.IGNORECASE)


class Trust:
    """The proxies whose word about a client is believed."""

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        self._networks = tuple(ip_network(network, strict=False) for network in networks)
        self._known: dict[str, bool | None] = {}

    def covers(self, address: str) -> bool:
        """Whether this is the address of a trusted proxy."""
        return bool(self._networks) and bool(self._judge(address))

    def client_of(self, hops: list[str], peer: str) -> str:
        """Return the client's address: the last one that is not a trusted proxy's.

        Args:
            hops: Addresses as proxies wrote them, the nearest to the client first.
            peer: A trusted proxy. It is the client itself if it names nobody.
        """
        client = peer
        for hop in reversed(hops):
            address = bare(hop)
            is_proxy = self._judge(address)
            if is_proxy is None:
                break
            client = address
            if not is_proxy:
                break
        return client

    def _judge(self, address: str) -> bool | None:
        """Return whether an address is a trusted proxy's, or None if it is no address."""
        if address not in self._known:
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            self._known[address] = self._looked_up(address)
        return self._known[address]

    def _looked_up(self, address: str) -> bool | None:
        try:
            found = ip_address(address)
        except ValueError:
            return None
        return any(found in network for network in self._networks)


class RequestNames:
    """Names for requests: a prefix that is this worker's alone, and a number that only grows."""

    __slots__ = ("number", "prefix")

    def __init__(self) -> None:
        self.prefix = secrets.token_hex(8).encode()
        self.number = 0


class Identity:
    """Who is at the other end of a connection, and for whom it speaks.

    Attributes:
        client: Address of the client, as far as it is known; of the newest request.
        is_trusted: The peer is a trusted proxy.
    """

    __slots__ = (
        "_authority",
        "_has_via",
        "_lines",
        "_name",
        "_names",
        "_number",
        "_peer",
        "_scheme",
        "_trust",
        "client",
        "is_trusted",
    )

    def __init__(
        self,
        peer: str,
        trust: Trust,
        names: RequestNames | None,
        *,
        is_secure: bool,
        has_via: bool,
    ) -> None:
        self._peer = self.client = bare(peer) if ":" in peer else peer
        self._trust = trust
        self._names = names
        self._name = b""
        self._number = 0
        self._scheme = b"https" if is_secure else b"http"
        self._has_via = has_via
        self._authority: bytes | None = None
        self._lines = b""
        self.is_trusted = trust.covers(self._peer)

    @property
    def request_name(self) -> bytes:
        """Return X-Request-Id of the newest request; empty if we give none."""
        if self._name or self._names is None:
            return self._name
        return b"%b-%x" % (self._names.prefix, self._number)

    def is_secure(self, request: Request) -> bool:
        """Whether the client's own connection is encrypted, by what a trusted proxy says of it."""
        return self._scheme_of(self._claims(request)) == b"https"

    def lines(self, request: Request) -> bytes:
        """Return the field lines that go with a request; `client` and `request_name` follow it."""
        authority, names = request.authority, self._names
        if self.is_trusted and request.claims:
            lines = self._lines_beside(request.claims, authority)
        else:
            if authority != self._authority:
                self._learn(authority)
            lines = self._lines
            if names is not None:
                names.number = self._number = number = names.number + 1
                lines = b"%b%x\r\n" % (lines, number)
        return lines + via(is_http10=request.is_http10) if self._has_via else lines

    def _learn(self, authority: bytes) -> None:
        """Make the lines for a host when the peer is the client, up to the request's number."""
        self.client = self._peer
        self._authority = authority
        self._lines = self._lines_for(authority)

    def _claims(self, request: Request) -> Claims:
        return request.claims if self.is_trusted else _NO_CLAIMS

    def _scheme_of(self, claims: Claims) -> bytes:
        said = claims.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
        if said not in _SCHEMES:
            found = _FORWARDED_PROTO.findall(claims.get(b"forwarded", b""))
            said = found[-1].lower() if found else self._scheme
        return said

    def _lines_for(self, authority: bytes) -> bytes:
        """Return the lines for a host when the peer is the client, up to the request's number."""
        address = self._peer.encode()
        self._name = b""
        lines = [
            b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\n" % (address, address),
            b"X-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (self._scheme, authority),
            b"Forwarded: %b\r\n" % self._element(authority),
        ]
        if self._names is not None:
            lines.append(b"X-Request-Id: %b-" % self._names.prefix)
        return b"".join(lines)

    def _lines_beside(self, claims: Claims, authority: bytes) -> bytes:
        """Return the lines when a trusted peer speaks for the client."""
        chain, forwarded = claims.get(b"x-forwarded-for"), claims.get(b"forwarded")
        self._authority = None
        self.client = self._trust.client_of(_hops(claims), self._peer)
        peer = self._peer.encode()
        lines = [
            b"X-Forwarded-For: %b\r\n" % (b"%b, %b" % (chain, peer) if chain else peer),
            b"X-Real-IP: %b\r\n" % self.client.encode(),
            b"X-Forwarded-Proto: %b\r\n" % self._scheme_of(claims),
            b"X-Forwarded-Host: %b\r\n" % (claims.get(b"x-forwarded-host") or authority),
        ]
        if b"x-forwarded-port" in claims:
            lines.append(b"X-Forwarded-Port: %b\r\n" % claims[b"x-forwarded-port"])
        element = self._element(authority)
        lines.append(
            b"Forwarded: %b\r\n" % (b"%b, %b" % (forwarded, element) if forwarded else element)
        )
        if self._names is not None:
            lines.append(b"X-Request-Id: %b\r\n" % self._named(claims, self._names))
        return b"".join(lines)

    def _named(self, claims: Claims, names: RequestNames) -> bytes:
        """Return the name that the request came with, or a new one."""
        self._name = claims.get(b"x-request-id", b"")
        names.number = self._number = names.number + 1
        return self.request_name

    def _element(self, authority: bytes) -> bytes:
        """Return what we know of this hop in the words of RFC 7239 section 4."""
        node = f'"[{self._peer}]"' if ":" in self._peer else self._peer
        return b'for=%b;host="%b";proto=%b' % (node.encode(), authority, self._scheme)


def via(*, is_http10: bool) -> bytes:
    """Return the field line that says that a message of HTTP/1.0 or 1.1 came through here (18)."""
    return b"Via: %b %b\r\n" % (b"1.0" if is_http10 else b"1.1", _PSEUDONYM)


def bare(address: str) -> str:
    """Return an address without port, brackets, zone or the IPv4-in-IPv6 prefix."""
    address = address.strip()
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    address = address.partition("%")[0]
    return address.removeprefix("::ffff:") if "." in address else address


def _hops(claims: Claims) -> list[str]:
    """Return the addresses that a trusted peer names, the nearest to the client first."""
    chain = claims.get(b"x-forwarded-for")
    if chain is not None:
        return chain.decode("latin-1").split(",")
    forwarded = claims.get(b"forwarded")
    if forwarded is not None:
        found = _FORWARDED_FOR.findall(forwarded.decode("latin-1"))
        return [quoted or plain for quoted, plain in found]
    real = claims.get(b"x-real-ip")
    return [] if real is None else [real.decode("latin-1")]
