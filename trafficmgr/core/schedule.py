"""How weight moves: which share of traffic a rollout's candidate may carry.

The share is never above what the candidate has proved that it can carry (promise 3): with two of
three groups ready it is at most 66 %.
"""

from trafficmgr.core.model import Rollout

WHOLE_PCT = 100


def capacity_pct(ready: int, replicas: int) -> int:
    """Return the share that this many ready groups may carry, in whole per cents."""
    return min(WHOLE_PCT, WHOLE_PCT * ready // max(1, replicas))


def groups_for(weight_pct: int, replicas: int) -> int:
    """Return how many groups it takes to carry a share; a preview takes one as well."""
    return max(1, -(-replicas * weight_pct // WHOLE_PCT))


def step_weight_pct(rollout: Rollout) -> int:
    """Return the weight of the present step; 0 before the first."""
    return 0 if rollout.step < 0 else rollout.settings.steps[rollout.step].weight_pct


def next_weight_pct(rollout: Rollout) -> int:
    """Return the weight of the step that comes next; 100 after the last."""
    steps = rollout.settings.steps
    following = rollout.step + 1
    return steps[following].weight_pct if following < len(steps) else WHOLE_PCT
