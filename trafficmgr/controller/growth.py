"""How the draft of a receipt grows: by what the state shows and what the workers counted.

The rules:

* Of a worker that was there when the rollout began, only what it counted since is booked; one that
  started later began at 0.
* Each worker goes from one window to the next when it acknowledges the table with the new weights.
  It reports just before that, so no request is booked under weights that it was not drawn by.
* Counts come once a second: at its beginning a receipt may hold up to a second too much.
* After the end only the revision that lost is counted on, until its groups are gone.
* What the state showed to nobody, because no controller was there, is a gap and no guess.

Everything here is pure; `now` is CLOCK_BOOTTIME. controller/receipts.py calls it.
"""

from trafficmgr.controller import proofs
from trafficmgr.controller.counts import Ledger, grown, total, without_clients
from trafficmgr.controller.receipt import GroupFacts, Receipt, Window, Witness, WorkerEnd, iso
from trafficmgr.core.model import Group, GroupPhase, Rollout, RolloutPhase, Slot
from trafficmgr.core.routing import Table
from trafficmgr.core.state import EndpointState
from trafficmgr.core.template import short

PATIENCE_S = 5.0
"""How long a worker may take to report once everything else is done; it does so each second."""

LATE_S = 2.0
"""A worker that is first heard of later than this after the beginning leaves a gap."""

MOST_WINDOWS = 200
"""A candidate whose health flaps changes the weights each time; the last window takes the rest."""


def known_rollouts(state: EndpointState) -> dict[str, Rollout]:
    """Return the rollouts that the state still knows, oldest first."""
    last = () if state.rollout is None else (state.rollout,)
    return {rollout.id: rollout for rollout in (*state.history, *last)}


def begun(
    rollout: Rollout, state: EndpointState, table: Table, ledger: Ledger, offset_s: float
) -> Receipt:
    """Return the draft of a rollout that has just begun.

    Args:
        rollout: What it is about.
        state: The endpoint as it is now.
        table: What was served when it began.
        ledger: What the workers have counted.
        offset_s: Wall time minus CLOCK_BOOTTIME, now.
    """
    started_at = rollout.started_at + offset_s
    first = Window(generation=table.generation, at=started_at, weights=_weights(table))
    receipt = Receipt(
        id=rollout.id,
        endpoint=state.name,
        origin=rollout.origin,
        revision=rollout.revision,
        boot_id=state.boot_id,
        offset_s=offset_s,
        started_at=started_at,
        is_rollback=rollout.is_rollback,
        windows=(first,),
        steps=tuple(step.weight_pct for step in rollout.settings.steps),
    )
    known = [slot for slot in state.slots if slot.start_id]
    return receipt.but(workers={slot.start_id: _witness(receipt, slot, ledger) for slot in known})


def followed(
    receipt: Receipt, state: EndpointState | None, ledger: Ledger, now: float, *, is_missed: bool
) -> Receipt:
    """Return the draft after a change of the state.

    Args:
        receipt: The draft.
        state: The endpoint; None when it is gone altogether.
        ledger: What the workers have counted.
        now: Seconds on CLOCK_BOOTTIME.
        is_missed: What changed did so while nobody looked, so `now` is not when.
    """
    if state is None:
        receipt = receipt if receipt.ended_at is not None else _cut_short(receipt, now)
        return _settled(_without_groups(receipt, {}, now, is_missed=is_missed), None, now)
    rollout = known_rollouts(state).get(receipt.id)
    was_over = receipt.ended_at is not None
    if rollout is not None and not was_over:
        receipt = _with_rollout(receipt, rollout, is_removed=state.is_removed)
    if receipt.ended_at is None:
        receipt = _with_window(receipt, state, now)
    receipt = _with_workers(receipt, state, ledger, now)
    receipt = _with_groups(receipt, state, now, is_missed=is_missed)
    return _settled(receipt, state, now)


def booked(receipt: Receipt, ledger: Ledger) -> Receipt:
    """Return the draft with everything booked that workers have said up to now."""
    for start_id in receipt.workers:
        receipt = _booked(receipt, start_id, ledger)
    return receipt


def is_finished(receipt: Receipt, state: EndpointState | None, now: float) -> bool:
    """Whether nothing more can come: all is settled, and every worker has reported since."""
    if receipt.settled_at is None:
        return False
    if receipt.wall(now) >= receipt.settled_at + PATIENCE_S:
        return True
    slots = state.slots if state is not None else ()
    present = [receipt.workers.get(slot.start_id) for slot in slots if slot.is_present]
    return all(witness and witness.heard_at >= receipt.settled_at for witness in present)


def finished(receipt: Receipt) -> Receipt:
    """Return the final receipt: what workers and hooks left unsaid becomes sentences."""
    for witness in receipt.workers.values():
        if sentence := _unsaid(receipt, witness):
            receipt = receipt.with_gap(sentence)
    for index, _ in proofs.unwritten(receipt):
        receipt = proofs.without_output(receipt, index, "nobody answered who could tell.")
    return receipt.but(is_final=True, workers={}, present={})


def rebooted(receipt: Receipt, boot_id: str, offset_s: float) -> Receipt:
    """Return the draft for another boot, whose clock starts anew."""
    moved = receipt.but(boot_id=boot_id, offset_s=offset_s)
    return moved.with_gap(
        "The machine was restarted meanwhile: times before and after it are told apart by the wall"
        " clock only."
    )


# -- the rollout and its windows ------------------------------------------------------------------


def _with_rollout(receipt: Receipt, rollout: Rollout, *, is_removed: bool) -> Receipt:
    new = rollout.marks[len(receipt.marks) :]
    marks = (*receipt.marks, *(mark.but(at=receipt.wall(mark.at)) for mark in new))
    receipt = receipt.but(phase=rollout.phase, reason=rollout.reason, marks=marks)
    receipt = proofs.followed(receipt, rollout)
    if rollout.ended_at is None:
        return receipt
    losing = {receipt.origin} if rollout.phase is RolloutPhase.completed else {receipt.revision}
    if is_removed:
        losing = {receipt.origin, receipt.revision}
    ended_at = receipt.wall(rollout.ended_at)
    # a window begins when it was seen, and the event that ends the rollout may be older than that
    windows = tuple(window.but(at=min(window.at, ended_at)) for window in receipt.windows)
    return receipt.but(ended_at=ended_at, windows=windows, losing=tuple(sorted(losing - {""})))


def _cut_short(receipt: Receipt, now: float) -> Receipt:
    receipt = receipt.with_gap("The endpoint was gone before the end of this rollout was seen.")
    return receipt.but(ended_at=receipt.wall(now), losing=(receipt.origin, receipt.revision))


def _with_window(receipt: Receipt, state: EndpointState, now: float) -> Receipt:
    """Open another window if the weights are no longer those of the last one."""
    last = receipt.windows[-1]
    if state.table.generation <= last.generation or _weights(state.table) == last.weights:
        return receipt
    if len(receipt.windows) == MOST_WINDOWS:
        return receipt.with_gap(f"The weights changed more than {MOST_WINDOWS} times.")
    window = Window(
        generation=state.table.generation,
        at=receipt.wall(now),
        weights=_weights(state.table),
    )
    return receipt.but(windows=(*receipt.windows, window))


def _weights(table: Table) -> dict[str, int]:
    return {share.revision: share.weight_pct for share in table.shares}


# -- workers --------------------------------------------------------------------------------------


def _witness(receipt: Receipt, slot: Slot, ledger: Ledger) -> Witness:
    """Return the worker of a slot as it is when the rollout begins."""
    witness = Witness(slot=slot.number, window=0, applied=slot.applied)
    counts = ledger.of(slot.start_id)
    if counts is None:
        return witness
    shares = without_clients(counts.endpoints.get(receipt.endpoint, {}))
    return witness.but(counts=shares, heard_at=receipt.wall(counts.at))


def _with_workers(receipt: Receipt, state: EndpointState, ledger: Ledger, now: float) -> Receipt:
    """Take note of workers that came, went, or moved on to another table."""
    for slot in state.slots:
        witness = receipt.workers.get(slot.start_id)
        if not slot.start_id or (witness is not None and witness.applied == slot.applied):
            continue
        if witness is None:  # it was started after the rollout
            witness = Witness(
                slot=slot.number, window=0, applied=0, counts={}, heard_at=receipt.wall(now)
            )
            receipt = _with_witness(receipt, slot.start_id, witness)
        receipt = _booked(receipt, slot.start_id, ledger)
        moved = receipt.workers[slot.start_id].but(
            applied=slot.applied, window=_window_of(receipt, slot.applied)
        )
        receipt = _with_witness(receipt, slot.start_id, moved)
    here = {slot.start_id for slot in state.slots}
    for start_id, witness in receipt.workers.items():
        if start_id not in here and witness.end is None:
            receipt = _parted(receipt, start_id, ledger)
    return receipt


def _parted(receipt: Receipt, start_id: str, ledger: Ledger) -> Receipt:
    """Take note that a worker is gone, with the last that it said."""
    receipt = _booked(receipt, start_id, ledger)
    end = WorkerEnd(
        is_clean=ledger.has_ended_well(start_id), is_unheard=ledger.of(start_id) is None
    )
    return _with_witness(receipt, start_id, receipt.workers[start_id].but(end=end))


def _booked(receipt: Receipt, start_id: str, ledger: Ledger) -> Receipt:
    """Book what a worker has counted since the last time into the window that it is in."""
    witness, counts = receipt.workers[start_id], ledger.of(start_id)
    if witness.end is not None and ledger.has_ended_well(start_id):  # its bye came a little late
        witness = witness.but(end=WorkerEnd(is_clean=True))
        receipt = _with_witness(receipt, start_id, witness)
    if counts is None or (heard_at := receipt.wall(counts.at)) < witness.heard_at:
        return receipt
    shares = without_clients(counts.endpoints.get(receipt.endpoint, {}))
    heard = _with_witness(receipt, start_id, witness.but(counts=shares, heard_at=heard_at))
    if witness.counts is None:
        late_s = heard_at - receipt.started_at
        return heard if late_s <= LATE_S else heard.with_gap(_late(witness.slot, late_s))
    grew = grown(shares, witness.counts)
    if receipt.ended_at is not None and witness.heard_at >= receipt.ended_at:
        grew = {revision: share for revision, share in grew.items() if revision in receipt.losing}
    window = receipt.windows[witness.window]
    more = window.but(counted=total((window.counted, grew)))
    windows = (
        *receipt.windows[: witness.window], more, *receipt.windows[witness.window + 1 :],
    )  # fmt: skip
    return heard.but(windows=windows)


def _window_of(receipt: Receipt, applied: int) -> int:
    """Return the index of the window whose weights a worker serves with."""
    reached = [n for n, window in enumerate(receipt.windows) if window.generation <= applied]
    return reached[-1] if reached else 0


def _with_witness(receipt: Receipt, start_id: str, witness: Witness) -> Receipt:
    return receipt.but(workers={**receipt.workers, start_id: witness})


def _late(slot: int, late_s: float) -> str:
    return f"What the worker of slot {slot} served in the first {late_s:.0f}s was not counted."


def _unsaid(receipt: Receipt, witness: Witness) -> str:
    """Return what is missing of a worker, as a sentence; "" if nothing is."""
    slot, end = witness.slot, witness.end
    if witness.counts is None:
        return f"The worker of slot {slot} was never heard of; what it served was not counted."
    if end is None:
        if witness.heard_at >= (receipt.settled_at or 0.0):
            return ""
        return f"The worker of slot {slot} did not report after {iso(witness.heard_at)}."
    if end.is_clean:
        return ""
    when = iso(witness.heard_at)
    how = "ended while no controller was there" if end.is_unheard else "ended without a bye"
    return f"A worker of slot {slot} {how}; what it served after {when} was not counted."


# -- groups ---------------------------------------------------------------------------------------


def _with_groups(receipt: Receipt, state: EndpointState, now: float, *, is_missed: bool) -> Receipt:
    """Keep the books of the old and the new groups; after the end only of those that lost."""
    is_over = receipt.ended_at is not None
    wanted = receipt.losing if is_over else (receipt.origin, receipt.revision)
    present = {
        group.id: _facts(group, receipt)
        for group in state.groups
        if group.revision in wanted and not (is_over and group.id not in receipt.present)
    }
    if is_over:
        winners = {k: v for k, v in receipt.present.items() if v.revision not in receipt.losing}
        receipt = receipt.but(
            present={k: v for k, v in receipt.present.items() if k not in winners}
        )
    return _without_groups(receipt, present, now, is_missed=is_missed)


def _without_groups(
    receipt: Receipt, present: dict[str, GroupFacts], now: float, *, is_missed: bool
) -> Receipt:
    """Close the books of the groups that are no longer present."""
    stopped_at = None if is_missed else receipt.wall(now)
    gone = tuple(
        facts.but(stopped_at=stopped_at, is_missed=is_missed)
        for name, facts in receipt.present.items()
        if name not in present
    )
    if not gone and present == receipt.present:
        return receipt
    return receipt.but(present=present, groups=(*receipt.groups, *gone))


def _facts(group: Group, receipt: Receipt) -> GroupFacts:
    is_cut = group.phase is GroupPhase.stopping and bool(group.http_slots or group.tunnel_slots)
    return GroupFacts(
        id=group.id,
        revision=group.revision,
        address=group.address,
        hook=group.hook,
        withdrawn_at=None if group.withdrawn_at is None else receipt.wall(group.withdrawn_at),
        answered_at=None if group.answered_at is None else receipt.wall(group.answered_at),
        has_clients=is_cut,
        note=group.note,
    )


def _settled(receipt: Receipt, state: EndpointState | None, now: float) -> Receipt:
    """Note when all that lost is gone, or carries traffic again."""
    if receipt.ended_at is None or receipt.settled_at is not None:
        return receipt
    roles = set() if state is None else {state.stable, state.candidate}
    back = [revision for revision in receipt.losing if revision in roles]
    if any(facts.revision not in back for facts in receipt.present.values()):
        return receipt
    for revision in back:
        receipt = receipt.with_gap(
            f"Revision {short(revision)} came back before its groups were stopped."
        )
    return receipt.but(settled_at=receipt.wall(now))
