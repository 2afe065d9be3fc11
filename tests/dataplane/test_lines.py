"""Lines and gates by themselves: order, deadlines, and that nobody is forgotten or served twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trafficmgr.dataplane.tallies import Tally
from trafficmgr.dataplane.waiting import PASSING, Gate, Line, Lines


class Guest:
    """Somebody who waits; `house` says how much room there is and what has happened."""

    def __init__(self, house: "House", number: int) -> None:
        self.house = house
        self.since = float(number)
        self.gate: Gate | None = None

    def proceed(self) -> bool:
        if self.house.room == 0:
            return False
        self.house.room -= 1
        self.house.served.append(self)
        return True

    def resume(self, gate: Gate | None) -> None:
        self.gate = gate
        self.house.served.append(self)
        if self.house.is_broken and gate is not None:
            gate.passed()

    def give_up(self, text: str, reason: str) -> None:
        assert text
        self.house.sent_away[self] = reason


class House:
    def __init__(self) -> None:
        self.lines = Lines()
        self.tally = Tally()
        self.line = Line(self.lines, self.tally)
        self.gate = Gate(self.lines, self.tally)
        self.room = 0
        self.is_broken = False
        self.served: list[Guest] = []
        self.sent_away: dict[Guest, str] = {}
        self.guests: list[Guest] = []

    def join(self, line: Line, until: float = 100.0) -> Guest:
        guest = Guest(self, len(self.guests))
        self.guests.append(guest)
        assert line.join(guest, until)
        return guest

    def free(self, count: int = 1) -> None:
        """Let so many requests end."""
        for _ in range(count):
            self.room += 1
            self.line.advance()


# -- lines ----------------------------------------------------------------------------------------


def test_the_first_in_line_is_served_first() -> None:
    house = House()
    guests = [house.join(house.line) for _ in range(5)]

    house.free(3)

    assert house.served == guests[:3]
    assert (len(house.line), house.tally.waiting) == (2, 2)


def test_room_that_nobody_waits_for_is_kept_for_who_comes() -> None:
    house = House()
    house.free(2)

    assert (house.room, house.line.is_owed, house.lines.busy) == (2, False, set())


def test_who_has_waited_for_too_long_is_sent_away_and_the_next_one_is_first() -> None:
    house = House()
    late, patient = house.join(house.line, until=5.0), house.join(house.line, until=9.0)

    house.lines.sweep(4.9)
    assert house.sent_away == {}
    house.lines.sweep(5.0)
    house.free()

    assert house.sent_away == {late: "queue_timeout"}
    assert house.served == [patient]


def test_the_sweep_looks_for_room_that_nobody_told_of() -> None:
    """Groups that refused are passed over for a time only."""
    house = House()
    guest = house.join(house.line)
    house.room = 1

    house.lines.sweep(1.0)

    assert house.served == [guest]
    assert house.lines.busy == set()


def test_who_leaves_is_in_nobodys_way() -> None:
    house = House()
    first, second = house.join(house.line), house.join(house.line)

    house.line.leave(first)
    house.line.leave(first)
    house.free()

    assert house.served == [second]
    assert house.tally.waiting == 0


def test_a_worker_that_ends_sends_everybody_away_and_lets_nobody_wait() -> None:
    house = House()
    house.gate.turn(is_open=False)
    guests = [house.join(house.line), house.join(house.gate)]

    house.lines.close()

    assert house.sent_away == dict.fromkeys(guests, "closing")
    assert not house.line.join(Guest(house, 9), 100.0)
    assert house.tally.waiting == 0


ACTS = st.lists(st.sampled_from(["join", "leave", "free", "sweep", "late"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(ACTS, st.randoms(use_true_random=False))
def test_whatever_happens_each_has_one_end_and_the_order_is_kept(acts: list[str], rand) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  hypothesis has no public name for it
    house, gone, now = House(), set[Guest](), 0.0
    for act in acts:
        now += 1.0
        waiting = [g for g in house.guests if g not in {*house.served, *house.sent_away, *gone}]
        match act:
            case "join" if house.room:
                house.room -= 1
            case "join":
                house.join(house.line, until=now + rand.choice([3.0, 1000.0]))
            case "leave" if waiting:
                gone.add(guest := rand.choice(waiting))
                house.line.leave(guest)
            case "free":
                house.free()
            case "late":
                house.lines.sweep(now)
        ends = [*house.served, *house.sent_away, *gone]
        assert len(ends) == len(set(ends))
        assert house.served == sorted(house.served, key=lambda guest: guest.since)
        assert len(house.line) == house.tally.waiting == len(house.guests) - len(ends)
        assert not (house.room and len(house.line))


# -- gates ----------------------------------------------------------------------------------------


def test_a_shut_gate_lets_nobody_pass() -> None:
    house = House()
    house.gate.turn(is_open=False)
    house.join(house.gate)

    house.gate.advance()
    house.lines.sweep(1.0)

    assert house.served == []


def test_an_open_gate_lets_all_pass_in_their_order_and_some_at_a_time() -> None:
    house = House()
    house.gate.turn(is_open=False)
    guests = [house.join(house.gate) for _ in range(3 * PASSING)]

    house.gate.turn(is_open=True)
    assert len(house.served) == PASSING
    for guest in guests:
        assert guest in house.served
        house.gate.passed()
        assert len(house.served) <= guests.index(guest) + 1 + PASSING

    assert house.served == guests


def test_a_gate_that_is_shut_again_holds_who_has_not_passed() -> None:
    house = House()
    house.gate.turn(is_open=False)
    guests = [house.join(house.gate, until=5.0) for _ in range(PASSING + 1)]
    house.gate.turn(is_open=True)

    house.gate.turn(is_open=False)
    house.gate.passed()
    house.lines.sweep(5.0)

    assert house.served == guests[:PASSING]
    assert house.sent_away == {guests[-1]: "hold_timeout"}


def test_who_may_pass_but_waits_for_others_has_its_time_anew() -> None:
    house = House()
    house.gate.passing_s = 30.0
    house.gate.turn(is_open=False)
    last = [house.join(house.gate, until=5.0) for _ in range(PASSING + 1)][-1]
    house.gate.turn(is_open=True)

    for now in (6.0, 35.9):
        house.lines.sweep(now)
        house.gate.turn(is_open=True)  # another table, which says the same
        assert house.sent_away == {}
    house.lines.sweep(36.0)

    assert list(house.sent_away) == [last]


def test_thousands_that_end_as_soon_as_they_pass_are_no_deep_recursion() -> None:
    """Each would let the next one pass from within, if it were not for the loop outside."""
    house = House()
    house.gate.turn(is_open=False)
    guests = [house.join(house.gate) for _ in range(5000)]
    house.is_broken = True

    house.gate.turn(is_open=True)

    assert house.served == guests
