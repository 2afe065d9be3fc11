"""Which endpoint a request is for: by its host, and by the path if endpoints share a host.

The book says which tables there are; this page is their compiled form for the proxy. The rules:

* A host leads to the endpoint that has it by name. `*.apps.test` is every name with exactly one
  label more: what a certificate for it covers as well (RFC 9525 section 6.3).
* A name goes before a preview's, and both go before a wildcard.
* Endpoints may share a host if their paths differ. A path is a prefix of whole segments: `/api` is
  `/api`, `/api/` and what is below, not `/apis`. The longest that fits wins.
* Targets are compared as they are written and passed on as they are written. `/x/../api` is below
  `/x`, and `/%61pi` is not `/api`: whatever an application makes of them, it gets no request that
  another endpoint would have got.
* `OPTIONS *` is for whoever has the whole host.
* If two tables have the same place, as while a host moves to another endpoint, the newest that
  has anything to reach gets it, whichever of the two comes first.
"""

from trafficmgr.core.routing import PREVIEW_PREFIX
from trafficmgr.dataplane.book import Book
from trafficmgr.dataplane.routes import Route

WILDCARD = "*."

_SEGMENT_ENDS = frozenset({b"", b"/", b"?"})


class Site:
    """What one host leads to; it is settled anew when a table that has the host comes or goes.

    Attributes:
        prefixes: Paths that have a route of their own, the longest first.
        whole: The route of all other paths; None if no endpoint has them.
    """

    __slots__ = ("_claims", "prefixes", "whole")

    def __init__(self) -> None:
        self._claims: dict[str, Route] = {}
        self.prefixes: tuple[tuple[bytes, Route], ...] = ()
        self.whole: Route | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no endpoint has the host."""
        return not self._claims

    def route_for(self, target: bytes) -> Route | None:
        """Return the route of a request's target, or None if no endpoint has its path."""
        for prefix, route in self.prefixes:
            end = len(prefix)
            if target.startswith(prefix) and target[end : end + 1] in _SEGMENT_ENDS:
                return route
        return self.whole

    def give(self, route: Route) -> None:
        """Let a route have its paths here; it is the newest."""
        self._claims.pop(route.table.endpoint, None)
        self._claims[route.table.endpoint] = route
        self._settle()

    def take(self, endpoint: str) -> None:
        """Let an endpoint have nothing here any more."""
        if self._claims.pop(endpoint, None) is not None:
            self._settle()

    def _settle(self) -> None:
        held: dict[bytes, Route] = {}
        for route in self._claims.values():
            for path in route.table.http.paths or ("/",):
                prefix = path.rstrip("/").encode()
                holder = held.get(prefix)
                if holder is None or route.lanes or not holder.lanes:
                    held[prefix] = route
        self.whole = held.pop(b"", None)
        self.prefixes = tuple(sorted(held.items(), key=lambda item: -len(item[0])))


class Hosts:
    """The sites of a book's tables, which it follows by `on_table`."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._names: dict[str, Site] = {}
        self._previews: dict[str, Site] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        for route in book.by_endpoint.values():
            self.take(route)
        book.on_table.append(self.take)

    def find(self, host: str) -> Site | None:
        """Return the site of a host, or None if nobody has it.

        Args:
            host: Lower case, without port and last dot.
        """
        site = self._names.get(host) or self._previews.get(host)
        if site is not None:
            return site
        site = self._names.get(_wildcard_of(host))
        if site is None and host.startswith(PREVIEW_PREFIX):
            wildcard = _wildcard_of(host.removeprefix(PREVIEW_PREFIX))
            site = self._previews.get(PREVIEW_PREFIX + wildcard)
        return site

    def take(self, route: Route) -> None:
        """Follow an endpoint to its newest table, and its preview with it."""
        table = route.table
        for host in self._known.get(table.endpoint, ()):
            _take(self._names, host, table.endpoint)
            _take(self._previews, PREVIEW_PREFIX + host, table.endpoint)
        self._known[table.endpoint] = table.hosts
        for host in table.hosts:
            self._names.setdefault(host, Site()).give(route)
            preview = self._book.preview_hosts.get(PREVIEW_PREFIX + host)
            if preview is not None and preview.table is table:
                self._previews.setdefault(PREVIEW_PREFIX + host, Site()).give(preview)


def _wildcard_of(host: str) -> str:
    """Return the wildcard that covers a host, if there is one."""
    return WILDCARD + host.partition(".")[2]


def _take(sites: dict[str, Site], host: str, endpoint: str) -> None:
    site = sites.get(host)
    if site is not None:
        site.take(endpoint)
        if site.is_empty:
            del sites[host]
