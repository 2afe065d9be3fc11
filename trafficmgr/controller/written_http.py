"""How HTTP is served, as people would write it, key by key (see `written`)."""

from collections.abc import Iterator

from trafficmgr.config.units import shown, shown_size
from trafficmgr.core.traffic import Ejection, Front, HttpPolicy, Pin

NEVER = "never"


def policy(given: HttpPolicy) -> Iterator[tuple[str, str]]:
    """Yield the keys of an endpoint's `http`; what core/publishing.py adds is none."""
    yield "http.paths", ", ".join(given.paths)
    yield "http.balance", given.balance.value
    yield "http.max_body", "" if given.max_body_bytes is None else shown_size(given.max_body_bytes)
    yield "http.connect_timeout", shown(given.connect_s)
    yield "http.response_timeout", shown(given.response_head_s)
    yield "http.stream_idle", shown(given.stream_idle_s)
    yield "http.tunnel_idle", shown(given.tunnel_idle_s)
    yield "http.max_requests", "" if given.max_requests is None else str(given.max_requests)
    yield "http.queue", f"{given.queue_limit} for {shown(given.queue_s)}"
    yield "http.hold", f"{given.hold_limit} for {shown(given.hold_s)}"
    yield "http.retry_budget", f"{given.retry_budget_pct}%"
    yield "http.ejection", NEVER if given.ejection is None else _ejection(given.ejection)
    yield "http.redirect_https", _flag(is_on=given.redirects_to_https)
    yield "http.pins", ", ".join(map(_pin, given.pins))


def front(given: Front) -> Iterator[tuple[str, str]]:
    """Yield the keys of `http` at the top level, and of `tls`."""
    log = given.access_log
    yield "http.request_line", shown_size(given.request_line_bytes)
    yield "http.head", shown_size(given.head_bytes)
    yield "http.fields", str(given.fields)
    yield "http.head_timeout", shown(given.head_s)
    yield "http.idle", shown(given.idle_s)
    yield "http.max_connections", str(given.max_connections)
    yield "http.trusted_proxies", ", ".join(given.trusted_proxies)
    yield "http.request_id", _flag(is_on=given.names_requests)
    yield "http.via", _flag(is_on=given.has_via)
    yield "http.access_log", "" if log is None else f"{log.path} ({log.format})"
    pairs = [f"{one.certificate} with {one.key}" for one in given.certificates]
    yield "tls.certificates", ", ".join(pairs)


def _ejection(given: Ejection) -> str:
    lasts = f"for {shown(given.base_s)} to {shown(given.longest_s)}"
    return f"after {given.failures} failures {lasts}"


def _pin(given: Pin) -> str:
    kind, name = ("header", given.header) if given.header else ("cookie", given.cookie)
    value = f" {given.value!r}" if given.value else ""
    return f"{kind} {name}{value} to {given.to.value}"


def _flag(*, is_on: bool) -> str:
    return "true" if is_on else "false"
