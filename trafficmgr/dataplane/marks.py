"""What a request carries that decides where it goes: pins, and what its client is told apart by.

Compiled from a table; a table that asks for none of it has no `Marks`, and its requests are not
looked at. The rules:

* The first pin that fits decides, whatever the weights; one without value fits any.
* With affinity by cookie the value is the client, whoever sets the cookie. A request without it
  gets one of ours, which counts at once; if the answer sets that cookie itself, ours is left out.
* With affinity by header the value is the client. Requests without it are told apart by nothing:
  each goes in turn, and is counted as the client of its turn.
* An empty value is none, and of several the first counts.

A cookie that the application changes moves its client each time; one that lasts is better.
"""

import re
import secrets

from trafficmgr.core.model import Affinity
from trafficmgr.core.routing import BUCKETS, Table, bucket_of
from trafficmgr.core.traffic import Pin, PinTo
from trafficmgr.wire.http_fields import cookie_finder, field_finder
from trafficmgr.wire.http_request import Request

OUR_COOKIE = "trafficmgr"
"""The cookie if the config names none."""

_ID_BYTES = 16


class Marks:
    """How to read the marks of an endpoint's requests.

    Attributes:
        affinity: What clients are told apart by.
        has_pins: Whether `pin_of` has to be asked.
        salt: What goes into a client's bucket.
    """

    __slots__ = ("_finder", "_name", "_pins", "affinity", "has_pins", "salt")

    def __init__(self, table: Table) -> None:
        self.affinity = table.affinity
        self.salt = table.salt
        self.has_pins = bool(table.http.pins)
        self._pins = tuple((pin.to, _finder_of(pin), pin.value.encode()) for pin in table.http.pins)
        self._name = (table.http.affinity_name or OUR_COOKIE).encode()
        is_cookie = self.affinity is Affinity.cookie
        self._finder = cookie_finder(self._name) if is_cookie else field_finder(self._name)

    def pin_of(self, request: Request) -> PinTo | None:
        """Return whom the request is pinned to, if it is."""
        for to, finder, wanted in self._pins:
            value = request.find(finder)
            if value and (not wanted or value == wanted):
                return to
        return None

    def client_of(self, request: Request) -> bytes:
        """Return what the client is told apart by, cookie or header; empty is none."""
        return request.find(self._finder) or b""

    def bucket_of(self, client: bytes) -> int:
        """Return the bucket of a client."""
        return bucket_of(client, self.salt)

    def cookie_for(self, client: bytes) -> bytes:
        """Return the field line that lets a client be told apart from now on."""
        return b"Set-Cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax\r\n" % (self._name, client)


def new_client() -> bytes:
    """Return a value for a client's cookie.

    It can't be guessed: some applications take what they find there for a session of theirs.
    """
    return secrets.token_hex(_ID_BYTES).encode()


def bucket_at(point: float) -> int:
    """Return the bucket that a point of the unit interval is in."""
    return int(point * BUCKETS)


def with_cookie(head: bytes, cookie: bytes) -> bytes:
    """Return an answer's head with a cookie of ours, unless it sets that cookie itself.

    Args:
        head: Whole, with the empty line at its end.
        cookie: A field line from `cookie_for`.
    """
    name = cookie.partition(b"=")[0].partition(b": ")[2]
    is_set = re.search(rb"\n(?i:set-cookie):[ \t]*%b[ \t]*=" % re.escape(name), head)
    return head if is_set else b"%b%b\r\n" % (head[:-2], cookie)


def _finder_of(pin: Pin) -> re.Pattern[bytes]:
    return field_finder(pin.header.encode()) if pin.header else cookie_finder(pin.cookie.encode())
