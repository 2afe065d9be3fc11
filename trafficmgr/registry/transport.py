"""HTTP towards one registry: where it is, what may be sent where, and what errors mean.

Rules that hold for every request:

* https, unless the registry is loopback or configured as insecure; never from https to http, not
  even when a redirect says so;
* redirects are followed by hand, and only the first origin ever sees the Authorization header;
* bodies come as they are sent, so that what is hashed is what the registry stored;
* every wait has a deadline.

Source: distribution-spec v1.1; field/registries.md 3.4.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from trafficmgr import __version__
from trafficmgr.registry import clock
from trafficmgr.registry.credentials import RegistryAccess, is_loopback
from trafficmgr.registry.errors import (
    AccessDeniedError,
    NotFoundError,
    RateLimitedError,
    RegistryError,
    RegistryUnreachableError,
    UntrustworthyAnswerError,
)
from trafficmgr.wire.oci_headers import parse_http_date, parse_retry_after

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
"""For a whole small answer, and for each silence within a large one."""

MAX_REDIRECTS = 5
MAX_CONNECTIONS = 8
MAX_ERROR_BYTES = 8192

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Transport:
    """A keep-alive session with one registry."""

    def __init__(
        self, registry: str, access: RegistryAccess, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self.registry = registry
        self.access = access
        self.timeout_s = timeout_s
        host = "registry-1.docker.io" if registry == "docker.io" else registry
        self.base = URL(f"{self._scheme(host)}://{host}")
        self._session: aiohttp.ClientSession | None = None

    def _scheme(self, host: str) -> str:
        name = URL(f"http://{host}").host or ""
        is_plain = self.access.is_insecure or (is_loopback(name) and not self.access.ca_file)
        return "http" if is_plain else "https"

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        form: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer that stands at the end of all redirects, whatever its status.

        Raises:
            RegistryUnreachableError: There is none, or it broke off while the caller read it.
            UntrustworthyAnswerError: A redirect leads where we don't go.
        """
        origin = url.origin()
        self.check_may_ask(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers or {})
            if authorization and url.origin() == origin:
                sent["Authorization"] = authorization
            async with self._request(method, url, sent, form) as response:
                is_redirect = response.status in _REDIRECTS and "Location" in response.headers
                if form is not None or not is_redirect:  # a form holds a token: never sent on
                    yield response
                    return
                url = self._next(url, response.headers["Location"])
        raise UntrustworthyAnswerError(self.registry, f"more than {MAX_REDIRECTS} redirects")

    def check_may_ask(self, url: URL) -> None:
        """Refuse an address that would carry credentials or images over plain http.

        Raises:
            UntrustworthyAnswerError: The registry sends us to such an address.
        """
        if url.scheme == "https" and url.host:
            return
        is_plain_fine = self.access.is_insecure or is_loopback(url.host or "")
        if url.scheme != "http" or not is_plain_fine:
            where = f"{url.scheme}://{url.host or ''}"
            raise UntrustworthyAnswerError(self.registry, f"it sends us to {where}, not to https")

    def _next(self, url: URL, location: str) -> URL:
        try:
            target = url.join(URL(location, encoded=True)).with_user(None)
        except ValueError as error:
            raise UntrustworthyAnswerError(
                self.registry, f'it redirects to "{location[:200]}", which is no address'
            ) from error
        if url.scheme == "https" and target.scheme != "https":
            raise UntrustworthyAnswerError(self.registry, "it redirects from https to http")
        self.check_may_ask(target)
        return target

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: dict[str, str], form: Mapping[str, str] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._open().request(
                method, url, headers=headers, data=form, allow_redirects=False
            ) as response:
                yield response
        except TimeoutError as error:
            what = f"{url.host} did not answer within {self.timeout_s:g} s"
            raise RegistryUnreachableError(self.registry, what) from error
        except aiohttp.ClientError as error:
            raise RegistryUnreachableError(self.registry, _reason(url, error)) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit_per_host=MAX_CONNECTIONS, ssl=self._trust()),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "User-Agent": f"trafficmgr/{__version__}",
                    "Accept-Encoding": "identity",
                },
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=CONNECT_TIMEOUT_S, sock_read=self.timeout_s
                ),
                auto_decompress=False,
            )
        return self._session

    def _trust(self) -> ssl.SSLContext | bool:
        if not self.access.ca_file:
            return True
        try:
            return ssl.create_default_context(cafile=self.access.ca_file)
        except OSError as error:
            what = f"its ca_file {self.access.ca_file} can't be used ({error})"
            raise AccessDeniedError(self.registry, what) from error


async def read_limited(
    registry: str, response: aiohttp.ClientResponse, limit: int, timeout_s: float
) -> bytes:
    """Return a small body whole.

    Raises:
        UntrustworthyAnswerError: It has more than `limit` bytes.
        RegistryUnreachableError: It takes longer than `timeout_s` seconds.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    what = f"its answer has more than the {limit} bytes that it may have"
                    raise UntrustworthyAnswerError(registry, what)
    except TimeoutError as error:
        what = f"its answer takes longer than {timeout_s:g} s"
        raise RegistryUnreachableError(registry, what) from error
    return bytes(body)


async def refusal(
    registry: str, response: aiohttp.ClientResponse, what: str, timeout_s: float
) -> RegistryError:
    """Return the error that an answer other than success stands for.

    Args:
        registry: Its host.
        response: The answer; its body is read.
        what: What was asked for, as in "team/web:stable".
        timeout_s: How long its body may take.
    """
    try:
        body = await read_limited(registry, response, MAX_ERROR_BYTES, timeout_s)
    except RegistryError:
        body = b""
    text = body.decode(errors="replace")
    said = _error_text(body)
    answered = f"it answered {response.status} for {what}" + (f" ({said})" if said else "")
    headers = response.headers
    now = parse_http_date(headers.get("Date", "")) or clock.wall()
    retry_after_s = parse_retry_after(headers.get("Retry-After", ""), text, now=now)
    match response.status:
        case 401 | 403:
            return AccessDeniedError(registry, answered, retry_after_s=retry_after_s)
        case 404:
            return NotFoundError(registry, answered)
        case 429:
            return RateLimitedError(registry, answered, retry_after_s=retry_after_s)
        case status if status >= 500:  # noqa: PLR2004  the class of server errors
            return RegistryUnreachableError(registry, answered, retry_after_s=retry_after_s)
        case _:
            return UntrustworthyAnswerError(registry, answered)


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct):
    errors: list[_Problem] = []


def _error_text(body: bytes) -> str:
    """Return what an error body says, in a few printable words."""
    try:
        problems = msgspec.json.decode(body, type=_Problems).errors
    except msgspec.DecodeError:
        return ""
    said = ", ".join(f"{problem.code}: {problem.message}" for problem in problems[:1])
    return "".join(char for char in said if char.isprintable())[:200]


def _reason(url: URL, error: aiohttp.ClientError) -> str:
    """Say what failed without the noise that libraries put around it."""
    where = f"{url.host}:{url.port}"
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"the TLS connection to {where} failed ({error})"
        case aiohttp.ClientConnectorError():
            return f"{where} can't be reached ({_os_reason(error.os_error)})"
        case _:
            return f"the connection to {where} broke ({str(error) or type(error).__name__})"


def _os_reason(error: OSError) -> str:
    """Return the system's own words, which asyncio replaces; resolvers have negative numbers."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error.strerror or error)
