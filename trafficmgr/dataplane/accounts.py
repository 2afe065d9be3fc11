"""What the access log says of a request: the one place that knows both sides of it.

It is called only while there is an access log, once per request, when the request is over.
"""

from time import monotonic
from typing import TYPE_CHECKING

from trafficmgr.dataplane.access_log import Entry
from trafficmgr.dataplane.routes import Route, Upstream
from trafficmgr.wire.http_fields import field_finder
from trafficmgr.wire.http_request import Request

if TYPE_CHECKING:
    from trafficmgr.dataplane.client import ClientConnection
    from trafficmgr.dataplane.exchange import Exchange

CLIENT_LEFT = 499
"""What nginx writes for a client that left before it was answered."""

_REFERER = field_finder(b"referer")
_USER_AGENT = field_finder(b"user-agent")


def of_request(
    client: "ClientConnection",
    request: Request | None,
    exchange: "Exchange | None",
    reason: str,
) -> Entry:
    """Return the entry of a request.

    Args:
        client: Its connection.
        request: None if what arrived was none.
        exchange: None if it got no further than us.
        reason: What went wrong, if the exchange does not know.
    """
    entry = Entry(
        status=client.status,
        bytes=client.take_sent_bytes(),
        seconds=monotonic() - client.begun_at,
        client=client.identity.client,
        reason=reason,
    )
    if request is not None:
        _describe(entry, request)
        entry.request_id = _text(client.identity.request_name)
    if client.route is not None:
        entry.endpoint = client.route.table.endpoint
    if exchange is not None:
        entry.reason = exchange.failure or reason
        if exchange.upstream is not None:
            entry.group = exchange.upstream.group
            entry.revision = revision_of(exchange.route, entry.group)
    return entry


def of_tunnel(client: "ClientConnection", upstream: Upstream) -> Entry:
    """Return the entry of a request that became a tunnel; whoever ends it adds what it took."""
    request, route = client.reader.queue[0], client.route
    sent_bytes = client.take_sent_bytes()
    entry = Entry(status=101, bytes=sent_bytes, seconds=0.0, client=client.identity.client)
    _describe(entry, request)
    entry.request_id = _text(client.identity.request_name)
    entry.group = upstream.group
    if route is not None:
        entry.endpoint = route.table.endpoint
        entry.revision = revision_of(route.seat.newest, upstream.group)
    return entry


def revision_of(route: Route, group: str) -> str:
    """Return the revision that a group of a route belongs to."""
    for share in route.shares:
        if any(target.group == group for target in share.targets):
            return share.revision
    return ""


def _describe(entry: Entry, request: Request) -> None:
    entry.method = _text(request.method)
    entry.host = _text(request.authority)
    entry.target = _text(request.target)
    entry.referer = _text(request.find(_REFERER) or b"")
    entry.user_agent = _text(request.find(_USER_AGENT) or b"")


def _text(data: bytes) -> str:
    return data.decode("latin-1")
