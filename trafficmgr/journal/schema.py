"""The journal's file: how it is opened, which tables it has, and what its failures mean.

SQLite in WAL mode with `synchronous=FULL`: a commit returns after its frames are fsynced, so that
what a caller was told is kept survives a power cut, and a torn tail of the WAL is dropped as a
whole transaction at the next open (https://www.sqlite.org/wal.html, "checksums").

`PRAGMA user_version` counts the migrations that were applied. A file of a newer trafficmgr is
refused and left as it is. `application_id` tells our file from any other SQLite database.

Everything here blocks. It runs in the journal's own thread (journal/sqlite.py).
"""

import os
import sqlite3
from pathlib import Path

from trafficmgr.journal.entries import JournalError

APPLICATION_ID = 0x746D6772  # "tmgr"

BUSY_S = 5.0
"""How long a commit waits for somebody else's lock, a backup or a person with `sqlite3`."""

MIGRATIONS = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, even after compaction
        at REAL NOT NULL,
        boot_id TEXT NOT NULL,
        wall TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        kind TEXT NOT NULL,
        event BLOB NOT NULL
    );
    CREATE TABLE states (
        name TEXT PRIMARY KEY,
        state BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE history (
        dropped_through INTEGER NOT NULL
    );
    INSERT INTO history VALUES (0);
    """,
    """
    CREATE TABLE receipts (
        number INTEGER PRIMARY KEY,  -- the order in which their rollouts began
        id TEXT NOT NULL UNIQUE,     -- the rollout's
        endpoint TEXT NOT NULL,
        is_final INTEGER NOT NULL,
        receipt BLOB NOT NULL
    );
    """,
)
"""Script n takes a file from version n to n + 1. Scripts are added, never changed."""

SCHEMA = len(MIGRATIONS)

_WHY = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Free some space"),
    sqlite3.SQLITE_BUSY: ("another program holds it locked", "End that program"),
    sqlite3.SQLITE_LOCKED: ("another program holds it locked", "End that program"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "Make the file and its folder writable"),
    sqlite3.SQLITE_PERM: ("we are not allowed to", "Make the file and its folder ours"),
    sqlite3.SQLITE_CANTOPEN: ("the file can't be opened", "Look at the folder and its rights"),
    sqlite3.SQLITE_IOERR: ("the disk reports an error", "Look at the disk (dmesg)"),
    sqlite3.SQLITE_NOTADB: (
        "it is not a database",
        "Move the file away, or name another state_dir",
    ),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "Restore it from a backup, or move it away"),
}


def failure(path: Path, what: str, error: Exception) -> JournalError:
    """Return the sentence for a failure of SQLite or of the file system.

    Args:
        path: The journal's file.
        what: What could not be done, as in "cannot <what> <path>".
        error: What was raised.
    """
    code = getattr(error, "sqlite_errorcode", None)
    why, advice = _WHY.get((code or 0) & 0xFF, ("something unexpected", "Look at the disk"))
    return JournalError(
        f"journal: cannot {what} {path}: {why} ({error}). Nothing of this was kept; traffic stays"
        f" as it is and no rollout moves until the journal can be used. {advice}."
    )


def connect(path: Path, max_pages: int | None = None) -> sqlite3.Connection:
    """Open the journal, create or migrate it if need be, and return the connection.

    Args:
        path: Its file; the folder must exist. A new file is readable by its owner only, because
            events carry settings and these may carry secrets.
        max_pages: A limit on the file's size in pages of 4 KiB, for tests of a full disk.

    Raises:
        JournalError: It can't be opened, is no database, is not ours, or is newer than we are.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise failure(path, "open", error) from error
    try:
        _prepare(connection, path)
        if max_pages is not None:
            connection.execute(f"PRAGMA max_page_count={max_pages:d}")
    except sqlite3.Error as error:
        connection.close()
        raise failure(path, "open", error) from error
    except JournalError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _number(connection, "PRAGMA user_version")
    _refuse_strangers(connection, path, version)
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise JournalError(
            f"journal: {path} lies on a file system that can't do WAL (it offers {mode!r}), so a"
            f" crash could lose what was decided. Name a state_dir on a local disk."
        )
    connection.execute("PRAGMA synchronous=FULL")
    _migrate(connection, version)


def _refuse_strangers(connection: sqlite3.Connection, path: Path, version: int) -> None:
    application = _number(connection, "PRAGMA application_id")
    is_new = application == 0 and _number(connection, "SELECT count(*) FROM sqlite_schema") == 0
    if not is_new and application != APPLICATION_ID:
        raise JournalError(
            f"journal: {path} is a database of another program; it was left as it is."
            f" Name another state_dir, or move the file away."
        )
    if version > SCHEMA:
        raise JournalError(
            f"journal: {path} was written by a newer trafficmgr (its schema is {version}, this"
            f" one knows {SCHEMA}); it was left as it is. Start the newer version again."
        )


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the file to the newest schema, one transaction for each step."""
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA application_id={APPLICATION_ID};"
            f" PRAGMA user_version={number}; COMMIT;"
        )


def _number(connection: sqlite3.Connection, query: str) -> int:
    (value,) = connection.execute(query).fetchone()
    assert isinstance(value, int)  # noqa: S101  only asked of queries that count
    return value
