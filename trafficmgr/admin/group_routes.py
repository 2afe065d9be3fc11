"""The part of the admin API that looks into groups.

GET /v1/endpoints/{name}/show?group=     groups, containers, counted events
GET /v1/endpoints/{name}/stats?group=    what they have used
GET /v1/groups/{id}/logs?container=&tail=&since_s=&timestamps=1&previous=1&follow=1
                                         plain text, as it was written
GET /v1/groups/{id}/exec                 a WebSocket, see admin/exec_stream.py
"""

from aiohttp import web

from trafficmgr.admin import exec_stream
from trafficmgr.admin.ports import Groups
from trafficmgr.admin.query import name_of, number_of, seconds_of, switch_of
from trafficmgr.admin.streams import streamed
from trafficmgr.runtimes.contract import LogQuery

GROUPS: web.AppKey[Groups] = web.AppKey("groups")


def add_routes(app: web.Application, groups: Groups) -> None:
    """Let the API look into groups."""
    app[GROUPS] = groups
    app.router.add_get("/v1/endpoints/{name}/show", _show)
    app.router.add_get("/v1/endpoints/{name}/stats", _stats)
    app.router.add_get("/v1/groups/{id}/logs", _logs)
    app.router.add_get("/v1/groups/{id}/exec", _exec)


async def _show(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return web.json_response(await request.app[GROUPS].show(name, name_of(request, "group")))


async def _stats(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return web.json_response(await request.app[GROUPS].stats(name, name_of(request, "group")))


async def _logs(request: web.Request) -> web.StreamResponse:
    query = LogQuery(
        container=request.query.get("container", ""),
        tail=number_of(request, "tail", None),
        has_timestamps=switch_of(request, "timestamps"),
        is_followed=switch_of(request, "follow"),
    )
    chunks = request.app[GROUPS].logs(
        request.match_info["id"],
        query,
        since_s=seconds_of(request, "since_s"),
        is_previous=switch_of(request, "previous"),
    )
    return await streamed(request, chunks, "text/plain")


async def _exec(request: web.Request) -> web.StreamResponse:
    return await exec_stream.carried(request, request.app[GROUPS], request.match_info["id"])
