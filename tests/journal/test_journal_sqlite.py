"""The journal keeps what it said it kept, in order, and nothing by halves."""

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import journal_support
from support.journal_support import counters, entry, fold

from trafficmgr.journal import schema
from trafficmgr.journal.sqlite import Journal, JournalError

DEADLINE_S = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    journal = await Journal.open(path)
    yield journal
    await journal.close()


# -- what is kept ---------------------------------------------------------------------------------


async def test_events_and_states_survive_a_reopen(path: Path) -> None:
    first = await Journal.open(path)
    seq = await first.append([entry(1), entry(2)], {"shop": b"3"})
    await first.close()

    again = await Journal.open(path)
    kept = await again.load()
    events = await again.events()
    await again.close()

    assert (kept.states, kept.last_seq, kept.dropped_through) == ({"shop": b"3"}, seq, 0)
    assert [stored.entry for stored in events] == [entry(1), entry(2)]


async def test_a_new_journal_is_empty_and_private(journal: Journal, path: Path) -> None:
    kept = await journal.load()

    assert (kept.states, kept.last_seq) == ({}, 0)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_commits_are_synced_to_the_disk(journal: Journal) -> None:
    """WAL with synchronous=NORMAL would lose acknowledged events at a power cut."""
    modes = await journal._ask(
        lambda: [
            journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
    )

    assert modes == ["wal", 2]


async def test_the_newest_state_of_a_name_wins_and_none_forgets_it(journal: Journal) -> None:
    await journal.append([entry(1)], {"shop": b"1", "blog": b"1"})
    await journal.append([entry(2)], {"shop": b"2", "blog": None})

    assert (await journal.load()).states == {"shop": b"2"}


async def test_a_state_can_change_without_an_event(journal: Journal) -> None:
    seq = await journal.append([entry(1)], {"shop": b"1"})

    assert await journal.append([], {"shop": b"2"}) == seq
    assert (await journal.load()).states == {"shop": b"2"}


# -- order and reading ----------------------------------------------------------------------------


async def test_concurrent_appends_keep_the_order_in_which_they_were_asked(
    journal: Journal,
) -> None:
    seqs = await asyncio.gather(*(journal.append([entry(n)], {"shop": b"x"}) for n in range(50)))

    assert list(seqs) == list(range(1, 51))
    assert [stored.entry.at for stored in await journal.events()] == [float(n) for n in range(50)]


async def test_events_of_an_endpoint_include_those_that_concern_all(journal: Journal) -> None:
    await journal.append([entry(1, "shop"), entry(2, "blog"), entry(3, "")], {})

    shop = await journal.events(endpoint="shop")

    assert [stored.seq for stored in shop] == [1, 3]


async def test_events_can_be_paged_and_read_from_the_end(journal: Journal) -> None:
    await journal.append([entry(n) for n in range(10)], {})

    assert [s.seq for s in await journal.events(limit=3)] == [1, 2, 3]
    assert [s.seq for s in await journal.events(after=3, limit=3)] == [4, 5, 6]
    assert [s.seq for s in await journal.events(limit=3, from_end=True)] == [8, 9, 10]


async def test_replay_yields_everything_across_chunks(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.journal.sqlite.CHUNK", 3)
    await journal.append([entry(n) for n in range(10)], {})

    assert [stored.seq async for stored in journal.replay()] == list(range(1, 11))


async def test_a_stored_event_is_ready_for_json(journal: Journal) -> None:
    await journal.append([entry(7)], {})

    (stored,) = await journal.events()

    plain = stored.as_plain()
    assert plain.pop("wall").endswith("+00:00")
    assert plain == {"seq": 1, "endpoint": "shop", "kind": "Added", "event": {"add": 7}}


# -- group commit and its fate --------------------------------------------------------------------


async def test_appends_that_wait_together_share_one_transaction(journal: Journal) -> None:
    commits: list[str] = []
    gate = threading.Event()
    await journal._ask(lambda: journal._connection.set_trace_callback(commits.append))
    held = journal._thread.submit(gate.wait, DEADLINE_S)

    async with asyncio.TaskGroup() as waiting:
        for n in range(20):
            waiting.create_task(journal.append([entry(n)], {}))
        await asyncio.sleep(0)  # each of them asks
        gate.set()

    assert held.result()
    assert commits.count("COMMIT") == 1


async def test_the_event_loop_goes_on_while_the_disk_is_slow(journal: Journal) -> None:
    gate = threading.Event()
    held = journal._thread.submit(gate.wait, DEADLINE_S)

    async with asyncio.TaskGroup() as tasks:
        append = tasks.create_task(journal.append([entry(1)], {}))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not append.done()
        gate.set()

    assert held.result()
    assert append.result() == 1


async def test_an_append_whose_caller_went_away_is_still_kept(journal: Journal) -> None:
    gate = threading.Event()
    journal._thread.submit(gate.wait, DEADLINE_S)
    async with asyncio.TaskGroup() as tasks:
        append = tasks.create_task(journal.append([entry(1)], {"shop": b"1"}))
        await asyncio.sleep(0)
        append.cancel()
        gate.set()

    assert (await journal.load()).states == {"shop": b"1"}


async def test_a_full_disk_fails_the_append_and_keeps_none_of_it(path: Path) -> None:
    journal = await Journal.open(path, max_pages=20)
    await journal.append([entry(1)], {"shop": b"1"})

    with pytest.raises(JournalError, match=r"the disk is full .* Free some space"):
        await journal.append([entry(2)] * 3, {"shop": b"2", "blog": b"x" * 200_000})
    seq = await journal.append([entry(3)], {"shop": b"4"})
    kept = await journal.load()
    await journal.close()

    assert seq == 2
    assert kept.states == {"shop": b"4"}


async def test_appends_of_one_group_fail_together(path: Path) -> None:
    """A later state builds on an earlier event; alone it would be a hole in the history."""
    journal = await Journal.open(path, max_pages=20)
    gate = threading.Event()
    journal._thread.submit(gate.wait, DEADLINE_S)
    async with asyncio.TaskGroup() as tasks:
        too_big = tasks.create_task(_outcome(journal, {"shop": b"x" * 200_000}))
        small = tasks.create_task(_outcome(journal, {"shop": b"2"}))
        await asyncio.sleep(0)
        gate.set()
    kept = await journal.load()
    await journal.close()

    assert "the disk is full" in too_big.result()
    assert "the disk is full" in small.result()
    assert (kept.states, kept.last_seq) == ({}, 0)


async def _outcome(journal: Journal, states: dict[str, bytes]) -> str:
    try:
        return str(await journal.append([entry(1)], states))
    except JournalError as error:
        return str(error)


async def test_somebody_elses_lock_fails_the_append_with_a_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_S", 0.05)
    journal = await Journal.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(JournalError, match="another program holds it locked"):
        await journal.append([entry(1)], {})

    other.execute("ROLLBACK")
    other.close()
    assert await journal.append([entry(1)], {}) == 1
    await journal.close()


async def test_what_cannot_be_stored_is_an_error_not_a_hang(journal: Journal) -> None:
    with pytest.raises(JournalError):
        await journal.append([entry(1)], {"shop": object()})  # type: ignore[dict-item]

    assert (await journal.load()).last_seq == 0


# -- compaction -----------------------------------------------------------------------------------


async def test_compaction_drops_the_oldest_and_remembers_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.journal.sqlite.CHUNK", 4)
    await journal.append([entry(n) for n in range(20)], {"shop": b"190"})

    assert await journal.compact(keep=5) == 15
    assert await journal.compact(keep=5) == 0

    kept = await journal.load()
    assert (kept.dropped_through, kept.last_seq, kept.states) == (15, 20, {"shop": b"190"})
    assert [stored.seq async for stored in journal.replay()] == [16, 17, 18, 19, 20]


async def test_a_seq_is_never_given_twice(path: Path) -> None:
    first = await Journal.open(path)
    await first.append([entry(1), entry(2)], {})
    await first.compact(keep=0)
    await first.close()

    again = await Journal.open(path)
    kept = await again.load()
    seq = await again.append([entry(3)], {})
    await again.close()

    assert (kept.last_seq, seq) == (2, 3)


# -- receipts -------------------------------------------------------------------------------------


async def test_receipts_survive_a_reopen_in_the_order_of_their_rollouts(path: Path) -> None:
    first = await Journal.open(path)
    for number, endpoint in enumerate(("shop", "blog", "shop"), start=1):
        await first.put_receipt(f"r{number}", endpoint, b"draft", is_final=False)
    await first.put_receipt("r1", "shop", b"final", is_final=True)
    await first.close()

    again = await Journal.open(path)
    assert await again.receipts() == [b"final", b"draft", b"draft"]
    assert await again.receipts("shop", limit=1) == [b"draft"]
    assert await again.receipts("nobody") == []
    assert await again.drafts() == [b"draft", b"draft"]
    assert await again.final_receipts() == {"r1"}
    assert (await again.receipt("r1"), await again.receipt("r9")) == (b"final", None)
    await again.close()


async def test_a_draft_is_replaced_and_a_final_receipt_is_not(journal: Journal) -> None:
    assert await journal.put_receipt("r1", "shop", b"draft", is_final=False)
    assert await journal.put_receipt("r1", "shop", b"later", is_final=False)
    assert await journal.put_receipt("r1", "shop", b"final", is_final=True)

    assert not await journal.put_receipt("r1", "shop", b"again", is_final=True)
    assert not await journal.put_receipt("r1", "shop", b"draft", is_final=False)

    assert await journal.receipts() == [b"final"]


async def test_only_the_newest_receipts_are_kept_and_no_draft_is_lost(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trafficmgr.journal.sqlite.KEPT_RECEIPTS", 3)
    await journal.put_receipt("r0", "shop", b"draft", is_final=False)
    for number in range(1, 8):
        await journal.put_receipt(f"r{number}", "shop", b"%d" % number, is_final=True)

    assert await journal.receipts() == [b"draft", b"5", b"6", b"7"]


async def test_a_receipt_on_a_full_disk_is_an_error_with_a_sentence(path: Path) -> None:
    small = await Journal.open(path, max_pages=12)

    with pytest.raises(JournalError, match="the disk is full"):
        await small.put_receipt("r1", "shop", bytes(100_000), is_final=True)

    assert await small.receipts() == []
    await small.close()


async def test_a_journal_of_the_version_before_gets_room_for_receipts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        before.setattr(schema, "SCHEMA", 1)
        old = await Journal.open(path)
        await old.append([entry(1)], {"shop": b"1"})
        await old.close()

    new = await Journal.open(path)
    assert await new.put_receipt("r1", "shop", b"final", is_final=True)
    assert (await new.load()).states == {"shop": b"1"}
    await new.close()


# -- opening --------------------------------------------------------------------------------------


async def test_a_folder_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(JournalError, match=r"cannot open .*journal\.db.*Not a directory"):
        await Journal.open(tmp_path / "file" / "journal.db")


async def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"these are my notes, not a database\n" * 100)

    with pytest.raises(JournalError, match="it is not a database"):
        await Journal.open(path)

    assert path.read_bytes().startswith(b"these are my notes")


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE notes (text)")
    other.commit()
    other.close()
    before = path.read_bytes()

    with pytest.raises(JournalError, match="a database of another program"):
        await Journal.open(path)

    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.append([entry(1)], {"shop": b"1"})
    await journal._ask(lambda: journal._connection.execute("PRAGMA user_version=99"))
    await journal.close()
    before = path.read_bytes()

    with pytest.raises(JournalError, match=r"newer trafficmgr \(its schema is 99"):
        await Journal.open(path)

    assert path.read_bytes() == before


async def test_a_damaged_file_is_an_error_with_a_sentence(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.append([entry(n) for n in range(2000)], {"shop": b"1"})
    await journal.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)

    with pytest.raises(JournalError, match="it is damaged"):
        await _open_and_load(path)


async def _open_and_load(path: Path) -> None:
    journal = await Journal.open(path)
    try:
        await journal.load()
    finally:
        await journal.close()


async def test_a_closed_journal_says_so(path: Path) -> None:
    journal = await Journal.open(path)
    await journal.close()
    await journal.close()

    with pytest.raises(JournalError, match="closed already"):
        await journal.append([entry(1)], {})


async def test_closing_keeps_what_was_asked_for_before(path: Path) -> None:
    journal = await Journal.open(path)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(journal.append([entry(1)], {"shop": b"1"}))
        await asyncio.sleep(0)
        await journal.close()

    again = await Journal.open(path)
    kept = await again.load()
    await again.close()
    assert kept.states == {"shop": b"1"}


# -- crashes --------------------------------------------------------------------------------------


@pytest.mark.processes
async def test_a_killed_writer_leaves_states_that_equal_the_fold_of_events(path: Path) -> None:
    acknowledged = 0
    for batches in (1, 4, 9, 16, 25, 2, 7, 13):
        acknowledged = _write_and_kill(path, batches)

        journal = await Journal.open(path)
        kept, states, folded = await journal.load(), await counters(journal), await fold(journal)
        await journal.close()

        assert kept.last_seq >= acknowledged
        assert kept.last_seq % 3 == 0, "half a batch was kept"
        assert states == folded
    assert acknowledged >= 3 * 70


def _write_and_kill(path: Path, batches: int) -> int:
    """Let a process append, kill it after so many acknowledged batches; return the last seq."""
    writer = subprocess.Popen(
        [sys.executable, journal_support.__file__, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    with writer:
        seqs = [int(next(writer.stdout)) for _ in range(batches)]
        writer.kill()
        seqs += [int(line) for line in writer.stdout.read().split()]
    assert writer.returncode == -signal.SIGKILL
    return seqs[-1]


@pytest.mark.parametrize("cut_bytes", [1, 24, 700, 4096, 9000])
async def test_a_torn_tail_of_the_wal_costs_whole_transactions_only(
    path: Path, tmp_path: Path, cut_bytes: int
) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    journal = await Journal.open(path)
    for number in range(1, 9):
        total = sum(range(number + 1))
        await journal.append([entry(number)], {"shop": str(total).encode()})
    for file in (path, path.with_name("journal.db-wal")):
        shutil.copy(file, torn / file.name)
    await journal.close()

    wal = torn / "journal.db-wal"
    os.truncate(wal, wal.stat().st_size - cut_bytes)
    reopened = await Journal.open(torn / path.name)
    kept, states, folded = await reopened.load(), await counters(reopened), await fold(reopened)
    await reopened.close()

    assert 0 < kept.last_seq < 8
    assert states == folded
