"""Whether a request is let in, and to which endpoint: all that is settled before a group is chosen.

In this order: 421 if the connection's certificate is not for the host, or the target says https and
the connection is none (RFC 9110 section 7.4), 404
if no endpoint has the host or the path, 308 if the endpoint wants https and this is not, 413 if the
body is too large for the endpoint.
"""

from typing import TYPE_CHECKING

from trafficmgr.dataplane.routes import Route
from trafficmgr.wire.http import Refusal, host_of
from trafficmgr.wire.http_request import Request

if TYPE_CHECKING:
    from trafficmgr.dataplane.client import ClientConnection


class Moved(Refusal):
    """The same thing is to be had elsewhere; `line` is the field line that says where."""

    def __init__(self, place: bytes) -> None:
        super().__init__(308, "this host is served by https only")  # 308 keeps method and body
        self.line = b"Location: %b\r\n" % place


def admit(client: "ClientConnection", request: Request) -> Route:
    """Return the route of a request's host and path.

    Raises:
        Refusal: It goes no further; Moved says where to go instead.
    """
    server = client.server
    if client.names is not None and request.authority != client.covered:
        _check_covered(client, request.authority)
    if request.is_https and not client.identity.is_secure(request):
        raise Refusal(421, "the target says https, and this connection has no TLS")
    route = server.route_for(request.authority, request.target)
    policy = route.table.http
    is_redirected = policy.redirects_to_https and route.preview is None  # smoke asks without TLS
    if is_redirected and not client.identity.is_secure(request):
        raise Moved(server.secure_place(request.authority, request.target))
    if policy.max_body_bytes is not None:
        request.limit_body(policy.max_body_bytes)
    return route


def _check_covered(client: "ClientConnection", authority: bytes) -> None:
    """Refuse a host that the connection's certificate is not for.

    Raises:
        Refusal: A browser then opens a connection of its own for the host.
    """
    host = host_of(authority)
    if client.names is not None and not client.names.covers(host):
        raise Refusal(421, f"this connection's certificate is not for the host {host}")
    client.covered = authority
