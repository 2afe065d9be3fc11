"""Getting in: nothing, Basic, or a Bearer token from the service that the registry names.

A registry says in its first 401 what it wants; that is remembered, so that later requests carry
the right header at once. Tokens are cached per realm, service, scope and identity, renewed when
75 % of their life is over or 30 s are left, and fetched once however many requests wait for one.

Source: distribution's token specification; field/registries.md 3.4.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
import msgspec
from yarl import URL

from trafficmgr.registry import clock
from trafficmgr.registry.credentials import Credentials, find_credentials
from trafficmgr.registry.errors import AccessDeniedError, UntrustworthyAnswerError
from trafficmgr.registry.transport import Transport, read_limited, refusal
from trafficmgr.wire.oci_headers import Challenge, parse_challenges

CLIENT_ID = "trafficmgr"
DEFAULT_LIFE_S = 60.0
"""The token specification: what a token lives when its answer does not say."""

RENEW_AT_SHARE = 0.75
RENEW_BEFORE_S = 30.0
MAX_TOKEN_BYTES = 64 * 1024
MAX_TOKENS = 1000

_Key = tuple[str, str, str, str]


class _TokenJson(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


@dataclass(frozen=True)
class _Token:
    value: str
    renew_at: float


class Authorizer:
    """Knows what one registry wants, and holds the tokens for it."""

    def __init__(self, transport: Transport, *, now: Callable[[], float] = clock.boottime) -> None:
        self._transport = transport
        self._now = now
        self._challenge: Challenge | None = None
        self._tokens: dict[_Key, _Token] = {}
        self._locks: dict[_Key, asyncio.Lock] = {}

    async def authorization(self, repository: str) -> str | None:
        """Return the Authorization header for pulling from a repository; None to send none.

        Raises:
            RegistryError: There is no way to get one.
        """
        if self._challenge is None:
            return None
        found = await find_credentials(self._transport.registry, repository, self._transport.access)
        if self._challenge.scheme == "basic":
            return self._basic(found)
        return "Bearer " + await self._token(self._challenge, repository, found)

    def learn(self, header: str) -> bool:
        """Take in a WWW-Authenticate header; return whether we can do what it asks for."""
        challenges = parse_challenges(header)
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    self._challenge = challenge
                    return True
        return False

    def forget(self, authorization: str) -> None:
        """Drop a token that the registry would not take."""
        value = authorization.removeprefix("Bearer ")
        self._tokens = {key: token for key, token in self._tokens.items() if token.value != value}

    def _basic(self, found: Credentials | None) -> str | None:
        if found is not None and found.identity_token:
            what = "it wants a user and a password, and we only have an identity token"
            raise AccessDeniedError(self._transport.registry, what)
        return None if found is None else found.basic

    async def _token(self, challenge: Challenge, repository: str, found: Credentials | None) -> str:
        realm = challenge.params.get("realm", "")
        service = challenge.params.get("service", "")
        scope = f"repository:{repository}:pull"
        key = (realm, service, scope, _identity(found))
        async with self._locks.setdefault(key, asyncio.Lock()):
            token = self._tokens.get(key)
            if token is None or token.renew_at <= self._now():
                self._make_room()
                token = await self._fetch(realm, {"service": service, "scope": scope}, found)
                self._tokens[key] = token
            return token.value

    def _make_room(self) -> None:
        """Drop what has run out; rotating credentials would fill the memory otherwise."""
        if len(self._tokens) >= MAX_TOKENS:
            now = self._now()
            self._tokens = {k: token for k, token in self._tokens.items() if token.renew_at > now}
            self._locks = {k: lock for k, lock in self._locks.items() if lock.locked()}

    async def _fetch(self, realm: str, asked: dict[str, str], found: Credentials | None) -> _Token:
        registry = self._transport.registry
        try:
            url = URL(realm)
        except ValueError:
            url = URL()
        if not url.is_absolute():
            raise UntrustworthyAnswerError(registry, f'its token realm "{realm[:200]}" is no URL')
        started_at = self._now()
        async with self._ask(url, asked, found) as response:
            if response.status != 200:  # noqa: PLR2004  the only success of a token service
                what = f"a token for {asked['scope']}"
                raise await refusal(registry, response, what, self._transport.timeout_s)
            body = await read_limited(
                registry, response, MAX_TOKEN_BYTES, self._transport.timeout_s
            )
        return self._decode(body, started_at)

    def _ask(
        self, url: URL, asked: dict[str, str], found: Credentials | None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        asked = {key: value for key, value in asked.items() if value} | {"client_id": CLIENT_ID}
        if found is not None and found.identity_token:
            form = {**asked, "grant_type": "refresh_token", "refresh_token": found.identity_token}
            return self._transport.answer("POST", url, form=form)
        basic = None if found is None else found.basic
        return self._transport.answer("GET", url.extend_query(asked), authorization=basic)

    def _decode(self, body: bytes, started_at: float) -> _Token:
        registry = self._transport.registry
        try:
            answer = msgspec.json.decode(body, type=_TokenJson)
        except msgspec.DecodeError as error:
            what = f"its token service answered with no token ({error})"
            raise UntrustworthyAnswerError(registry, what) from error
        value = answer.token or answer.access_token
        if not value or not value.isascii() or not value.isprintable():
            raise UntrustworthyAnswerError(registry, "its token service answered with no token")
        life_s = DEFAULT_LIFE_S if answer.expires_in is None else answer.expires_in
        return _Token(value, started_at + _renew_after(life_s))


def _renew_after(life_s: float) -> float:
    """Return how long to use a token; half its life at least, or a short one would be none."""
    return max(life_s / 2, min(life_s * RENEW_AT_SHARE, life_s - RENEW_BEFORE_S))


def _identity(found: Credentials | None) -> str:
    """Return a name for credentials that is not the credentials."""
    if found is None:
        return ""
    text = f"{found.username}\0{found.password}\0{found.identity_token}"
    return hashlib.sha256(text.encode()).hexdigest()
