"""The receipt of a run: for a person, and as the one JSON object of `--json`."""

import json
from typing import Any

from demo.house import RolloutSeen
from demo.judge import KIND_OF, Check, Evidence
from demo.ledger import Ledger, Met
from demo.versions import FLAWED


def as_json(evidence: Evidence, checks: list[Check], trouble: str | None) -> str:
    """Return the receipt in one line. `trouble` is why the demo could not be played to its end."""
    ledger = evidence.ledger
    receipt: dict[str, Any] = {
        "requests": ledger.requests,
        "failed": len(ledger.failures),
        "cut_by_kill": len(ledger.cuts),
        FLAWED: {endpoint: _met(endpoint, ledger)._asdict() for endpoint in KIND_OF},
        "p99_ms": ledger.p99_ms(),
        "clients": ledger.clients(),
        "rollouts": [_rollout(rollout, ledger) for rollout in evidence.rollouts],
        "checks": {check.name: check.is_ok for check in checks},
        "ok": is_ok(checks, trouble),
    }
    if trouble:
        receipt["trouble"] = trouble
    return json.dumps(receipt)


def is_ok(checks: list[Check], trouble: str | None) -> bool:
    """Whether the demo did what it must."""
    return trouble is None and bool(checks) and all(check.is_ok for check in checks)


def _rollout(rollout: RolloutSeen, ledger: Ledger) -> dict[str, Any]:
    return {
        "endpoint": rollout.endpoint,
        "from": rollout.origin or None,
        "to": rollout.target,
        "outcome": rollout.outcome,
        "seconds": round(rollout.seconds, 1),
        "failed": _failed(rollout, ledger),
    }


def _failed(rollout: RolloutSeen, ledger: Ledger) -> int:
    """Return how many requests of the endpoint's users failed while it was rolled out."""
    return ledger.failed_within(
        kind=KIND_OF[rollout.endpoint], since=rollout.started_at, until=rollout.ended_at
    )


def as_text(evidence: Evidence, checks: list[Check], trouble: str | None) -> str:
    """Return the receipt as a person reads it."""
    ledger = evidence.ledger
    clients = ", ".join(f"{kind} {count:,}" for kind, count in ledger.clients().items())
    lines = [
        "",
        "receipt",
        *(_line(rollout, ledger) for rollout in evidence.rollouts),
        "",
        f"  requests   {ledger.requests:,} ({clients}) in {ledger.duration_s:.1f} s",
        f"  p99        {ledger.p99_ms():g} ms, from when a request was due",
        f"  failed     {len(ledger.failures)}",
        f"  cut        {len(ledger.cuts)} by the killed worker, each sent again once",
        f"  {FLAWED}'s own errors, seen by users: {ledger.errors} ({_met_by_users(ledger)})",
        "",
        *(f"  {'ok  ' if c.is_ok else 'FAIL'}  {c.name:<24} {c.says}" for c in checks),
        "",
    ]
    if trouble:
        lines.append(f"  the demo could not go on: {trouble}")
    lines.append("ok" if is_ok(checks, trouble) else "NOT OK")
    return "\n".join(lines)


def _met(endpoint: str, ledger: Ledger) -> Met:
    """Return what users got of the release that is bad on purpose: its errors are no accident."""
    return ledger.met(FLAWED, kind=KIND_OF[endpoint])


def _met_by_users(ledger: Ledger) -> str:
    met = {endpoint: _met(endpoint, ledger) for endpoint in KIND_OF}
    return ", ".join(
        f"{endpoint} {one.errors} of {one.requests} requests within {one.exposed_s:.1f} s"
        for endpoint, one in met.items()
    )


def _line(rollout: RolloutSeen, ledger: Ledger) -> str:
    move = f"{rollout.origin or '-'} -> {rollout.target}"
    outcome = rollout.outcome or "under way"
    errors = _met(rollout.endpoint, ledger).errors if rollout.target == FLAWED else 0
    return (
        f"  {rollout.endpoint:<5} {move:<9} {outcome:<11} {rollout.seconds:5.1f} s"
        f"  {_failed(rollout, ledger)} failed"
        f"{f', {errors} errors of its own' if errors else ''}"
        f"{f'  ({rollout.reason})' if rollout.reason else ''}"
    )
