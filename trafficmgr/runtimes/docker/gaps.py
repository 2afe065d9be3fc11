"""What this engine can't give, by behaviour: most of it is known once it has been asked."""

from collections.abc import Mapping

from trafficmgr.runtimes.docker.cgroups import GroupLimits
from trafficmgr.runtimes.docker.engine import EngineFacts


def gaps(facts: EngineFacts | None, limits: GroupLimits) -> Mapping[str, str]:
    """Return behaviour -> why not here.

    Args:
        facts: What the engine is; None if it has not been asked yet.
        limits: How groups are limited.
    """
    if facts is None:
        return {}
    found = {
        "group_limits": limits.gap(facts),
        "cpu_limit": "" if facts.has_cpu_limit else "the engine can't limit cpu here",
        "memory_limit": "" if facts.has_memory_limit else "the engine can't limit memory here",
        "process_limit": (
            "" if facts.has_process_limit else "the engine can't limit processes here"
        ),
    }
    return {behaviour: why for behaviour, why in found.items() if why}
