"""What an operator may ask for now, and the sentence that says why not."""

from trafficmgr.core.model import RolloutPhase, short
from trafficmgr.core.state import EndpointState


def why_not_promote(state: EndpointState) -> str:
    """Return why `promote` is not possible now, as a sentence; "" if it is."""
    rollout = state.rollout
    if rollout is None or rollout.is_over:
        return f"{state.name} has no rollout under way, so there is nothing to promote."
    if rollout.phase is RolloutPhase.aborting:
        return f"The rollout of {short(rollout.revision)} is being aborted; it can't be promoted."
    if rollout.step < 0 and rollout.phase is RolloutPhase.progressing:
        return f"The groups of {short(rollout.revision)} are not ready yet; wait until they are."
    return ""


def why_not_abort(state: EndpointState) -> str:
    """Return why `abort` is not possible now, as a sentence; "" if it is."""
    rollout = state.rollout
    if rollout is None or rollout.is_over:
        return f"{state.name} has no rollout under way, so there is nothing to abort."
    if rollout.phase is RolloutPhase.aborting:
        return f"The rollout of {short(rollout.revision)} is being aborted already."
    return ""
