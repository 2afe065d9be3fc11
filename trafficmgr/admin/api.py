"""The admin API: the verbs of the command line as HTTP and JSON over a unix socket (DESIGN 11).

    GET  /v1/status
    GET  /v1/events?endpoint=&after=&limit=&follow=1   follow: one JSON document a line, for ever
                   &all=1                              with the checkpoints of gates, every 10 s
    GET  /v1/rollouts?endpoint=
    GET  /metrics, /v1/receipts[/{id}]                 admin/reports.py
    GET  /v1/endpoints/{name}/why                      {"says": ["a sentence", ...]}
    POST /v1/endpoints/{name}/{verb}                   promote {"full": true}, pause, resume, abort,
                                                       rollback, retry, scale {"replicas": 3},
                                                       hold, release
    POST /v1/plan, /v1/apply  {"path": "...", "text": "..."}   a config, by what its file holds
    GET  /v1/groups/{id}/logs, /v1/groups/{id}/exec, /v1/endpoints/{name}/stats and .../show
                                                       admin/group_routes.py
    POST /v1/stop  {"groups": false}

An answer to a POST is `{"says": "a sentence"}`, an error `{"error": "a sentence"}` with 400, 404,
409 (not possible now), 422 (a config with mistakes) or 503 (can't be answered now). Who may open
the socket may do everything: its mode is 0600, and there is no other check.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from trafficmgr.admin import group_routes
from trafficmgr.admin.address import reachable
from trafficmgr.admin.ports import House, UnknownNameError
from trafficmgr.admin.query import number_of, switch_of
from trafficmgr.admin.reports import Reports, add_routes
from trafficmgr.admin.streams import CLOSING, event_lines, streamed
from trafficmgr.config.load import ConfigError
from trafficmgr.core.errors import NotPossibleNowError, TrafficmgrError
from trafficmgr.core.operator import Verb
from trafficmgr.runtimes.contract import RuntimeFailure, RuntimeUnknownError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOUSE: web.AppKey[House] = web.AppKey("house")

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000
"""An answer is built in memory; 10,000 events are some megabytes."""

CLOSE_S = 2.0
"""How long requests under way may take to end when the service stops; then they are cut."""

BACKLOG = 128
"""Operators and scripts that may wait to be accepted."""

MAX_BODY_BYTES = 10 * 1024 * 1024
"""The largest config (4 MiB) with its quotes and line ends escaped."""

MAX_REPLICAS = 1000
"""As in the config (config/shape.py)."""

ORDERS: dict[str, Verb] = {verb.value: verb for verb in Verb if verb is not Verb.promote_full}
"""The last part of an order's address -> what it means."""

STATUS_OF: dict[type[TrafficmgrError], int] = {
    UnknownNameError: 404,
    NotPossibleNowError: 409,
    ConfigError: 422,
    RuntimeUnknownError: 503,
    RuntimeFailure: 404,  # there is no such group or container, or nothing of it is kept
    TrafficmgrError: 503,
}
"""HTTP status of an error; the first kind that it is an instance of counts."""

_log = structlog.get_logger(__name__)


def application(house: House, reports: Reports | None = None) -> web.Application:
    """Return the API in front of a house."""
    app = web.Application(middlewares=[_sentences], client_max_size=MAX_BODY_BYTES)
    app[HOUSE] = house
    app[CLOSING] = asyncio.Event()
    app.on_shutdown.append(_close_streams)
    app.router.add_get("/v1/status", _status)
    app.router.add_get("/v1/events", _events)
    app.router.add_get("/v1/rollouts", _rollouts)
    app.router.add_get("/v1/endpoints/{name}/why", _why)
    app.router.add_post("/v1/endpoints/{name}/{verb}", _ask)
    app.router.add_post("/v1/plan", _plan)
    app.router.add_post("/v1/apply", _apply)
    app.router.add_post("/v1/stop", _stop)
    group_routes.add_routes(app, house.groups)
    if reports is not None:
        add_routes(app, reports)
    return app


@contextlib.asynccontextmanager
async def serve(
    house: House, path: Path, reports: Reports | None = None
) -> AsyncIterator[web.AppRunner]:
    """Answer on a unix socket for as long as the block runs.

    The socket takes the place of one that a killed predecessor left; the controller's lock on
    state_dir is what makes sure that nobody else is using it.

    Raises:
        TrafficmgrError: The socket can't be made.
    """
    runner = web.AppRunner(application(house, reports), access_log=None, shutdown_timeout=CLOSE_S)
    await runner.setup()
    try:
        listener, inode = _listen(path)
        loop = asyncio.get_running_loop()
        assert runner.server is not None  # noqa: S101  it was set up
        server = await loop.create_unix_server(runner.server, sock=listener, backlog=BACKLOG)
        try:
            yield runner
        finally:
            _remove(path, inode)
            server.close()
    finally:
        await runner.cleanup()


def _listen(path: Path) -> tuple[socket.socket, int]:
    """Return a listening socket that only its owner may open, and the inode that it has.

    It is made under another name and renamed, so that a client finds the old one or the new one.
    """
    fresh = path.with_name(f".{path.name}.new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        with reachable(fresh) as name:
            listener.bind(name)
        fresh.chmod(0o600)  # before listen: nobody could have connected yet
        listener.listen(BACKLOG)
        inode = fresh.stat().st_ino
        fresh.rename(path)
    except OSError as error:
        listener.close()
        raise TrafficmgrError(
            f"admin: cannot listen on {path}: {error.strerror or error}. Traffic is not touched,"
            f" but `trafficmgr status` and the other verbs can't reach this service. Make the"
            f" folder writable, or name another state_dir."
        ) from error
    return listener, inode


def _remove(path: Path, inode: int) -> None:
    """Remove our socket, but not one that a successor has put in its place."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


async def _close_streams(app: web.Application) -> None:
    app[CLOSING].set()


# -- errors ---------------------------------------------------------------------------------------


@web.middleware
async def _sentences(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a status and a sentence."""
    try:
        return await handler(request)
    except TrafficmgrError as error:
        status = next(status for kind, status in STATUS_OF.items() if isinstance(error, kind))
        return _error(status, str(error))
    except web.HTTPException as error:
        return _error(error.status, error.text or error.reason)
    except Exception as error:  # noqa: BLE001  a defect must not look like a service that is down
        _log.exception("admin_request_failed", method=request.method, path=request.path)
        return _error(
            500,
            f"trafficmgr failed to answer {request.method} {request.path}: {error!r}. Traffic is"
            f" not touched. This is a defect; the service's log has the details.",
        )


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


# -- one handler for each verb --------------------------------------------------------------------


async def _status(request: web.Request) -> web.Response:
    return web.json_response(request.app[HOUSE].status())


async def _rollouts(request: web.Request) -> web.Response:
    return web.json_response(request.app[HOUSE].rollouts(request.query.get("endpoint") or None))


async def _events(request: web.Request) -> web.StreamResponse:
    house = request.app[HOUSE]
    endpoint = request.query.get("endpoint") or None
    after = number_of(request, "after", 0)
    limit = number_of(request, "limit", DEFAULT_LIMIT, most=MAX_LIMIT)
    is_whole = switch_of(request, "all")
    if switch_of(request, "follow"):
        lines = event_lines(house, endpoint, after, limit, has_checkpoints=is_whole)
        return await streamed(request, lines, "application/x-ndjson")
    found = await house.events(endpoint, after, limit, has_checkpoints=is_whole)
    return web.json_response(found)


async def _why(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return web.json_response({"endpoint": name, "says": request.app[HOUSE].why(name)})


async def _ask(request: web.Request) -> web.Response:
    """Do what an operator asks for. `promote --full` is a promote with a body."""
    name, word = request.match_info["name"], request.match_info["verb"]
    if word not in ORDERS:
        raise web.HTTPNotFound(text=f"There is no order {word!r}; there are {', '.join(ORDERS)}.")
    verb: Verb = ORDERS[word]
    replicas, wanted = None, await _body(request)
    if verb is Verb.promote and _flag(wanted, "full"):
        verb = Verb.promote_full
    if verb is Verb.scale:
        replicas = _replicas(wanted)
    return _says(await request.app[HOUSE].ask(verb, name, replicas=replicas))


def _replicas(wanted: dict[str, Any]) -> int:
    replicas = wanted.get("replicas")
    if type(replicas) is not int or not 1 <= replicas <= MAX_REPLICAS:
        raise web.HTTPBadRequest(
            text=f'"replicas" must be a whole number from 1 to {MAX_REPLICAS}, not {replicas!r}.'
        )
    return replicas


async def _plan(request: web.Request) -> web.Response:
    return web.json_response(await request.app[HOUSE].plan(*await _config(request)))


async def _apply(request: web.Request) -> web.Response:
    return web.json_response(await request.app[HOUSE].apply(*await _config(request)))


async def _config(request: web.Request) -> tuple[Path, bytes]:
    """Return the path of a config and the bytes of its file; what is no UTF-8 came escaped."""
    match await _body(request):
        case {"path": str(path), "text": str(text)} if Path(path).is_absolute():
            return Path(path), text.encode(errors="surrogateescape")
        case _:
            raise web.HTTPBadRequest(text='"path" must be an absolute path and "text" its text.')


async def _stop(request: web.Request) -> web.Response:
    groups = _flag(await _body(request), "groups")
    return _says(await request.app[HOUSE].stop(groups=groups))


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise web.HTTPBadRequest(text=f'"{key}" must be true or false, not {value!r}.')
    return value


async def _body(request: web.Request) -> dict[str, Any]:
    text = await request.text()
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="The body must be a JSON object.")
    return body


def _says(sentence: str) -> web.Response:
    return web.json_response({"says": sentence})
