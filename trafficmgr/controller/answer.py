"""One request to somebody, and what came back: sent once, with a deadline, never read to no end.

Each request has a connection of its own. Redirects are an answer like any other: following one
would be a second request, perhaps to a page that says 200 to everybody. What went wrong is said in
a few words that hold neither the address nor anything of the answer: both can hold a secret, and
what is said goes to the journal.
"""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

from trafficmgr import __version__

OK = range(200, 300)


class Trouble(StrEnum):
    """Why there is no answer, as far as that makes a difference to what was asked.

    `refused`: nothing was sent. `broken`: perhaps something was, and nobody knows what came of it.
    `late`: the same, after all the time there was. `garbled`: what came is no HTTP.
    """

    refused = "refused"
    broken = "broken"
    late = "late"
    garbled = "garbled"


class NoAnswerError(Exception):
    """There is no answer; the text says why in a few words."""

    def __init__(self, trouble: Trouble, reason: str) -> None:
        super().__init__(reason)
        self.trouble = trouble


class Answer(NamedTuple):
    """What came back; `is_cut` says that the body is longer than what is here of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether it is any 2xx."""
        return self.status in OK


async def answer_to(
    method: str,
    url: str,
    *,
    timeout_s: float,
    most_bytes: int,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
) -> Answer:
    """Send a request and return what came back.

    Args:
        method: GET, POST, ...
        url: Where to.
        timeout_s: For everything together.
        most_bytes: How much of the body is wanted.
        headers: Besides what every client sends.
        data: The body, if there is one.

    Raises:
        NoAnswerError: There is none.
    """
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=None)  # the time is kept below, over everything
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                middlewares=(_once,),
                headers={"User-Agent": f"trafficmgr/{__version__}"},
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as http,
            http.request(
                method, url, headers=headers, data=data, allow_redirects=False
            ) as response,
        ):
            body, is_cut = await _beginning(response, most_bytes)
            return Answer(response.status, response.headers, body, is_cut)
    except TimeoutError:
        raise NoAnswerError(Trouble.late, f"no answer within {timeout_s:g}s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _no_answer(error) from None  # its text and that of its causes may name the address


async def _once(
    request: aiohttp.ClientRequest, handler: ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again.

    It does so with a GET or a PUT whose connection broke off, whether or not the other side has
    acted on it already; it does not for an error that it does not know.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenOffError from error


class _BrokenOffError(aiohttp.ClientError):
    """The connection was there, and then it was not."""


async def _beginning(response: aiohttp.ClientResponse, most_bytes: int) -> tuple[bytes, bool]:
    """Return the body's first bytes, and whether there are more."""
    body = bytearray()
    while len(body) <= most_bytes:
        more = await response.content.read(most_bytes + 1 - len(body))
        if not more:
            return bytes(body), False
        body += more
    return bytes(body[:most_bytes]), True


def _no_answer(error: aiohttp.ClientError | OSError) -> NoAnswerError:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return NoAnswerError(Trouble.refused, "its name can't be resolved")
        case aiohttp.ClientSSLError():
            return NoAnswerError(Trouble.refused, "there is no TLS connection that can be trusted")
        case aiohttp.ClientConnectorError():
            return NoAnswerError(Trouble.refused, _connect_reason(error.os_error))
        case aiohttp.InvalidURL():
            return NoAnswerError(Trouble.refused, "its address is none")
        case _BrokenOffError() | OSError() | aiohttp.ClientPayloadError():
            return NoAnswerError(Trouble.broken, "the connection broke off")
        case _:
            return NoAnswerError(Trouble.garbled, "what came back is no HTTP")


def _connect_reason(cause: OSError) -> str:
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return f"no connection ({cause.strerror or type(cause).__name__})"
