"""How the draft of a receipt grows by what the revision had to prove: verdicts, hooks, smoke.

Hooks and smoke stay in the state until the rollout is over and are read there. Verdicts are not:
the state has those of the present stage only, and one that ends its stage is gone with it. They are
taken from the journal, in which each stands with its numbers, so that a controller that was killed
loses none. What a hook wrote comes from where it ran, once the hook is over; it may hold secrets,
so it is kept in the receipt and told to nobody else.

Everything here is pure; controller/receipts.py calls it.
"""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from trafficmgr.controller.receipt import HookFacts, Judged, Receipt, SmokeFacts
from trafficmgr.core import smoke
from trafficmgr.core.events import GateJudged
from trafficmgr.core.gating import HookPhase, HookRun
from trafficmgr.core.model import Rollout
from trafficmgr.core.schedule import WHOLE_PCT
from trafficmgr.journal.entries import Stored

MOST_VERDICTS = 200
"""A gate may flap for as long as `max_hold`; by then it is known what it says."""

OUTPUT_BYTES = 4096
"""The end of a migration's output: an error and its stack. The whole is in the logs for a while."""

OVER = frozenset({HookPhase.succeeded, HookPhase.failed, HookPhase.unknown})

# -- verdicts -------------------------------------------------------------------------------------


def judged(receipt: Receipt, stored: Stored) -> Receipt:
    """Return the draft with one more verdict, as the journal has it.

    Args:
        receipt: A draft; verdicts on other rollouts are nothing to it.
        stored: A `GateJudged` of the journal.
    """
    event = msgspec.json.decode(stored.entry.event, type=GateJudged)
    if event.rollout != receipt.id or stored.seq <= receipt.read_to:
        return receipt
    if len(receipt.verdicts) == MOST_VERDICTS:
        return receipt.with_gap(f"There were more than {MOST_VERDICTS} verdicts.")
    is_ours = stored.entry.boot_id == receipt.boot_id
    verdict = event.verdict
    at = receipt.wall(verdict.at) if is_ours else datetime.fromisoformat(stored.wall).timestamp()
    weight_pct = receipt.steps[event.stage] if event.stage < len(receipt.steps) else WHOLE_PCT
    new = Judged(stage=event.stage, weight_pct=weight_pct, verdict=verdict.but(at=at))
    return receipt.but(verdicts=(*receipt.verdicts, new))


# -- what the state shows -------------------------------------------------------------------------


def followed(receipt: Receipt, rollout: Rollout) -> Receipt:
    """Return the draft with hooks and smoke as they are, and with what an operator overruled."""
    for run in rollout.hooks:
        receipt = _with_hook(receipt, rollout, run)
    return receipt.but(is_overruled=rollout.is_overruled, smoke=_smoke(rollout))


def _smoke(rollout: Rollout) -> SmokeFacts | None:
    run = rollout.smoke
    if run is None:
        return None
    return SmokeFacts(asked=run.leg + 1, legs=smoke.legs(rollout), phase=run.phase, note=run.note)


def _with_hook(receipt: Receipt, rollout: Rollout, run: HookRun) -> Receipt:
    """Book how far a hook has come; one that is done again is another one."""
    at = _index(receipt, run.name)
    before = None if at is None else receipt.hooks[at]
    is_again = before is not None and before.phase in OVER and run.phase not in OVER
    if before is None or is_again:
        fresh = HookFacts(name=run.name, stage=rollout.hook(run.name).stage)
        return receipt.but(hooks=(*receipt.hooks, _seen(fresh, run, receipt)))
    assert at is not None  # noqa: S101  it is where `before` stands
    return _with_facts(receipt, at, _seen(before, run, receipt))


def _seen(facts: HookFacts, run: HookRun, receipt: Receipt) -> HookFacts:
    """Return the facts as they are now; a time that is written stays, whatever the boot is."""
    began_at, ended_at = facts.began_at, facts.ended_at
    is_here = run.phase not in {HookPhase.waiting, HookPhase.wanted}  # one done again began before
    if began_at is None and run.began_at and is_here:  # 0 is: in an earlier rollout
        began_at = receipt.wall(run.began_at)
    if ended_at is None and run.ended_at is not None:
        ended_at = receipt.wall(run.ended_at)
    return facts.but(
        phase=run.phase, group=run.group, began_at=began_at, ended_at=ended_at, note=run.note
    )


def _index(receipt: Receipt, name: str) -> int | None:
    """Return where the last time of a hook stands."""
    found = [index for index, facts in enumerate(receipt.hooks) if facts.name == name]
    return found[-1] if found else None


# -- what hooks wrote -----------------------------------------------------------------------------


def unwritten(receipt: Receipt) -> Iterator[tuple[int, HookRun]]:
    """Yield the hooks that are over and whose output was not had yet, by their place."""
    for index, facts in enumerate(receipt.hooks):
        is_over = facts.phase in OVER or receipt.ended_at is not None  # an abort cuts them off
        is_done_here = is_over and facts.began_at is not None
        if is_done_here and facts.output is None and not facts.is_output_lost:
            yield index, HookRun(name=facts.name, phase=facts.phase, group=facts.group)


def with_output(receipt: Receipt, index: int, text: str) -> Receipt:
    """Return the draft with the end of what a hook wrote."""
    return _with_facts(receipt, index, receipt.hooks[index].but(output=_end_of(text)))


def without_output(receipt: Receipt, index: int, why: str) -> Receipt:
    """Return the draft with a sentence on why it lacks what a hook wrote."""
    facts = receipt.hooks[index].but(is_output_lost=True)
    gap = f"What hook {facts.name} wrote could not be had: {why}"
    return _with_facts(receipt, index, facts).with_gap(gap)


def _end_of(text: str) -> str:
    """Return the end of a text, in whole characters."""
    return text.encode()[-OUTPUT_BYTES:].decode(errors="ignore")


def _with_facts(receipt: Receipt, index: int, facts: HookFacts) -> Receipt:
    hooks = (*receipt.hooks[:index], facts, *receipt.hooks[index + 1 :])
    return receipt.but(hooks=hooks)
