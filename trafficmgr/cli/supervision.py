"""Whether a supervisor runs on a state_dir, without asking it anything.

The admin socket belongs to the controller, which may be gone for a moment while its supervisor
starts the next one. `supervisor.lock` says who the supervisor is (supervisor/state.py); its lock
is not touched here, because holding it even briefly could keep a new run from starting.
"""

import json
from pathlib import Path

from trafficmgr.supervisor.identity import Identity, identity_of


def supervisor_of(state_dir: Path) -> Identity | None:
    """Return who supervises the service now, or None if nobody does."""
    try:
        recorded = json.loads((state_dir / "supervisor.lock").read_bytes())
        identity = Identity(**recorded)
    except (OSError, ValueError, TypeError):
        return None
    return identity if is_alive(identity) else None


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process still runs.

    One that reused its pid does not count, nor does one that has ended and is not reaped yet:
    whoever started the supervisor may be waiting for us before it looks.
    """
    return identity_of(identity.pid) == identity and not _is_zombie(identity.pid)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True  # reaped meanwhile
    return stat.rpartition(b")")[2].split()[0] in {b"Z", b"X"}
