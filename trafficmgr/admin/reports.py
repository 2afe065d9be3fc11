"""What the service reports for programs and for the record: metrics and receipts.

GET /metrics                          Prometheus text, or OpenMetrics if it is asked for
GET /v1/receipts?endpoint=&limit=     the newest receipts, final or not, oldest first
GET /v1/receipts/{id}                 of one rollout; 404 if none was kept
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from trafficmgr.admin import receipts
from trafficmgr.admin.metrics import Metrics, Sight
from trafficmgr.admin.ports import UnknownNameError
from trafficmgr.controller.counts import Ledger
from trafficmgr.controller.loop import Loop
from trafficmgr.controller.receipt import Receipt
from trafficmgr.controller.receipts import ReceiptBook

Failing = Callable[[str], bool]
"""Tells of an endpoint whether the last look at one of its images failed."""

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class Reports(Protocol):
    """Where the API gets its reports from; everything is ready for JSON as it stands."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return a page of metrics and its content type, as the Accept field asks for."""
        ...

    async def receipts(self, endpoint: str | None, limit: int) -> list[dict[str, Any]]:
        """Return the newest receipts, oldest first."""
        ...

    async def receipt(self, rollout: str) -> dict[str, Any]:
        """Return the receipt of a rollout.

        Raises:
            UnknownNameError: None was kept.
        """
        ...


class Kept(Protocol):
    """The journal, as far as receipts go."""

    async def receipt(self, rollout: str) -> bytes | None:
        """Return a receipt as it was put."""
        ...

    async def receipts(self, endpoint: str | None = ..., *, limit: int = ...) -> list[bytes]:
        """Return the newest receipts, oldest first."""
        ...


class LiveReports:
    """The reports of the running controller."""

    def __init__(
        self, *, loop: Loop, ledger: Ledger, book: ReceiptBook, kept: Kept, failing: Failing
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._book = book
        self._kept = kept
        self._failing = failing
        self._metrics = Metrics(self._look)

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return a page of metrics and its content type."""
        return self._metrics.exposition(accept)

    async def receipts(self, endpoint: str | None, limit: int) -> list[dict[str, Any]]:
        """Return the newest receipts; those under way as they are now, not as they were kept."""
        known = self._loop.fleet.endpoints
        kept = [_read(data) for data in await self._kept.receipts(endpoint, limit=limit)]
        if endpoint is not None and endpoint not in known and not kept:
            there = ", ".join(sorted(known)) or "none at all"
            raise UnknownNameError(f"There is no endpoint {endpoint!r}; there is {there}.")
        return [receipts.plain(self._book.current(one.id) or one) for one in kept]

    async def receipt(self, rollout: str) -> dict[str, Any]:
        """Return the receipt of a rollout, as it is now."""
        found = self._book.current(rollout)
        if found is None and (data := await self._kept.receipt(rollout)) is not None:
            found = _read(data)
        if found is None:
            raise UnknownNameError(
                f"There is no receipt of a rollout {rollout!r}; `trafficmgr rollouts` shows which"
                f" rollouts there were."
            )
        return receipts.plain(found)

    def _look(self) -> Sight:
        fleet = self._loop.fleet
        return Sight(
            fleet=fleet,
            ledger=self._ledger,
            registry_failed={name: self._failing(name) for name in fleet.endpoints},
            trouble=self._loop.trouble,
        )


def _read(data: bytes) -> Receipt:
    return msgspec.json.decode(data, type=Receipt)


# -- routes ---------------------------------------------------------------------------------------

REPORTS: web.AppKey[Reports] = web.AppKey("reports")


def add_routes(app: web.Application, reports: Reports) -> None:
    """Let the API answer with reports."""
    app[REPORTS] = reports
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/v1/receipts", _receipts)
    app.router.add_get("/v1/receipts/{id}", _receipt)


async def _metrics(request: web.Request) -> web.Response:
    page, content_type = request.app[REPORTS].metrics(request.headers.get("Accept", ""))
    return web.Response(body=page, headers={"Content-Type": content_type})


async def _receipts(request: web.Request) -> web.Response:
    endpoint = request.query.get("endpoint") or None
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit()) or int(text) > MAX_LIMIT:
        raise web.HTTPBadRequest(
            text=f"limit={text!r} is not possible: it must be a whole number, at most {MAX_LIMIT}."
        )
    return web.json_response(await request.app[REPORTS].receipts(endpoint, int(text)))


async def _receipt(request: web.Request) -> web.Response:
    return web.json_response(await request.app[REPORTS].receipt(request.match_info["id"]))
