"""How replies look, whatever they say: flags, EDNS, and the options that a client asked for.

What a query says of that is the same for all queries of a client, and mostly of all clients: it is
read once and kept by its bytes. Cookies are of one client each, and kept for a minute, so that they
are renewed in time.
"""

from collections.abc import Callable
from hashlib import blake2b
from socket import AF_INET, AF_INET6, inet_pton

from trafficmgr.core.dns_policy import DnsPolicy
from trafficmgr.dataplane import dns_tcp
from trafficmgr.wire import dns_query
from trafficmgr.wire.dns_cookies import SECRET_BYTES, Cookie, Secrets, Standing, answered
from trafficmgr.wire.dns_query import Manner, Query, Subnet

MAX_MANNERS = 1_000
"""Clients know a few dozen; beyond are random options, and forgetting all is as good as any."""

MAX_SHOWN = 10_000
"""Clients whose cookies are remembered, some MiB."""

_KEEPALIVE = dns_query.keepalive(dns_tcp.IDLE_S)
_SECRET_S = 24 * 3600
"""How long cookies are made with one secret; that of the day before is still believed."""

_MAPPED = "::ffff:"


class Manners:
    """The manners of queries, by the bytes that say them.

    These are the header but for the id, and what is behind the question.

    Args:
        policy: What is given out.
        wall: Seconds since 1970, as other servers count them.
    """

    def __init__(self, policy: DnsPolicy, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.has_cookies = policy.cookies.is_on and bool(policy.cookie_secret)
        self._secret = policy.cookie_secret
        self._nsid = dns_query.nsid(policy.nsid) if policy.nsid else b""
        self._known: dict[bytes, Manner] = {}
        self._shown: dict[tuple[bytes, str], Manner] = {}

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._known) + len(self._shown)

    def find(self, said: bytes, client: str) -> Manner | None:
        """Return the manner of a query like one before, None if there was none."""
        return self._known.get(said) or self._shown.get((said, client))

    def sweep(self) -> None:
        """Make cookies anew from now on; once a minute."""
        self._shown.clear()

    def of(self, query: Query, said: bytes, client: str, *, over_tcp: bool) -> Manner | None:
        """Return how the reply to a query looks, and keep it; None if its cookie is malformed."""
        asked, manner = query.manner.options, query.manner
        cookie = None
        told = b"" if asked.subnet is None else _echo(asked.subnet)
        if asked.wants_nsid:
            told += self._nsid
        if asked.wants_keepalive and over_tcp:
            told += _KEEPALIVE
        if asked.cookie is not None and self.has_cookies:
            cookie = self._cookie(asked.cookie, client)
            if cookie.standing is Standing.malformed:
                return None
            told += cookie.option
        if told:
            manner = manner.with_options(told)
        if cookie is not None:
            manner = manner._replace(is_proven=cookie.standing is Standing.valid)
        if not asked.wants_keepalive:
            self._keep(manner, said, client, has_cookie=cookie is not None)
        return manner

    def _keep(self, manner: Manner, said: bytes, client: str, *, has_cookie: bool) -> None:
        if has_cookie:
            if len(self._shown) >= MAX_SHOWN:
                self._shown.clear()
            self._shown[said, client] = manner
        else:
            if len(self._known) >= MAX_MANNERS:
                self._known.clear()
            self._known[said] = manner

    def _cookie(self, option: bytes, client: str) -> Cookie:
        now_s = int(self._wall())
        day = now_s // _SECRET_S
        secrets = Secrets(newest=self._derived(day), previous=self._derived(day - 1))
        return answered(option, _packed(client), secrets, now_s)

    def _derived(self, day: int) -> bytes:
        """Return the secret of a day, the same in all workers that share the first one."""
        return blake2b(b"%d" % day, digest_size=SECRET_BYTES, key=self._secret).digest()


def _echo(subnet: Subnet) -> bytes:
    """Return a client subnet with a scope that says: everybody gets the same."""
    return subnet.option(0)


def _packed(client: str) -> bytes:
    """Return an address as cookies are made with it; what is no address has none."""
    address = client.partition("%")[0]
    if address.startswith(_MAPPED) and "." in address:
        address = address.removeprefix(_MAPPED)
    try:
        return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        return b""
