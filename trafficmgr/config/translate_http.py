"""From the shape of `http`, `tls` and `affinity` to what workers obey (see `translate`)."""

from pathlib import Path

from trafficmgr.config.shape import EndpointShape, FileShape
from trafficmgr.config.shape_http import AccessLogShape, EjectionShape, PinShape
from trafficmgr.core.traffic import (
    AccessLog,
    Balance,
    Certificate,
    Ejection,
    Front,
    HttpPolicy,
    Pin,
    PinTo,
)


def policy_of(endpoint: EndpointShape) -> HttpPolicy:
    """Return how the proxy serves an endpoint, but for what the core adds for each table."""
    shape, affinity = endpoint.http, endpoint.affinity
    return HttpPolicy(
        paths=tuple(shape.paths),
        balance=Balance(shape.balance),
        affinity_name=affinity.cookie or affinity.header or "",
        pins=tuple(map(_pin, shape.pins)),
        ejection=None if shape.ejection is None else _ejection(shape.ejection),
        retry_budget_pct=round(shape.retry_budget * 100),
        max_body_bytes=shape.max_body,
        connect_s=shape.connect_timeout,
        response_head_s=shape.response_timeout,
        stream_idle_s=shape.stream_idle,
        tunnel_idle_s=shape.tunnel_idle,
        max_requests=shape.max_requests,
        queue_limit=shape.queue.limit,
        queue_s=shape.queue.timeout,
        hold_s=shape.hold.timeout,
        hold_limit=shape.hold.limit,
        redirects_to_https=shape.redirect_https,
    )


def front_of(file: FileShape, folder: Path) -> Front:
    """Return what concerns every connection; `folder` is where relative paths start."""
    shape = file.http
    return Front(
        request_line_bytes=shape.request_line,
        head_bytes=shape.head,
        fields=shape.fields,
        head_s=shape.head_timeout,
        idle_s=shape.idle,
        max_connections=shape.max_connections,
        trusted_proxies=tuple(shape.trusted_proxies),
        names_requests=shape.request_id,
        has_via=shape.via,
        access_log=None if shape.access_log is None else _access_log(shape.access_log, folder),
        certificates=tuple(
            Certificate(certificate=str(folder / one.certificate), key=str(folder / one.key))
            for one in (file.tls.certificates if file.tls else ())
        ),
    )


def _pin(shape: PinShape) -> Pin:
    return Pin(
        to=PinTo(shape.to),
        header=shape.header or "",
        cookie=shape.cookie or "",
        value=shape.value or "",
    )


def _ejection(shape: EjectionShape) -> Ejection:
    return Ejection(failures=shape.failures, base_s=shape.base, longest_s=shape.longest)


def _access_log(shape: AccessLogShape, folder: Path) -> AccessLog:
    return AccessLog(path=str(folder / shape.path), format=shape.format)
