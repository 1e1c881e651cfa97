"""Verdicts that outlive the process: a command killed at any moment goes on where it was."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.verdicts import DecidedBy, Verdict

PROJECT_STORE = Path("verdicts.db")  # of this project folder, shared by all commands

SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0

COLUMNS = """
    network TEXT NOT NULL,
    property TEXT NOT NULL,
    engine TEXT NOT NULL,
    verdict TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    seconds REAL NOT NULL,
    record TEXT NOT NULL,
    points BLOB,
    created TEXT NOT NULL,
    PRIMARY KEY (network, property, engine)
"""
WHERE_KEY = "WHERE network = ? AND property = ? AND engine = ?"

MOVE_AWAY = "move it away, and a new one is begun"
REMEDIES = {
    sqlite3.SQLITE_BUSY: f"another process held it for {BUSY_SECONDS:g} s; end that one first",
    sqlite3.SQLITE_CANTOPEN: "make it a writable file in a writable folder, or name another path",
    sqlite3.SQLITE_CORRUPT: MOVE_AWAY,
    sqlite3.SQLITE_ERROR: f"it has other tables than certiflow's; {MOVE_AWAY}",
    sqlite3.SQLITE_FULL: "free disk space",
    sqlite3.SQLITE_IOERR: "check the disk and its free space",
    sqlite3.SQLITE_NOTADB: MOVE_AWAY,
    sqlite3.SQLITE_PERM: "make it and its folder writable, or name another path",
    sqlite3.SQLITE_READONLY: "make it and its folder writable, or name another path",
}


@dataclass(frozen=True)
class VerdictKey:
    """What a verdict speaks of; two keys are the same entry only if all three parts are equal.

    Attributes:
        network: SHA-256 of the network, in hex digits.
        property: SHA-256 of the property, in hex digits.
        engine: the engine's version and settings.
    """

    network: str
    property: str
    engine: str


@dataclass(frozen=True, eq=False)
class StoredVerdict:
    """A verdict with its evidence.

    Attributes:
        margin, reason, target, deployed, witness: as in `VerificationResult`.
        stage_seconds: the part of `seconds` that each stage took.
        points: candidates or counterexamples, float64, any shape.
    """

    verdict: Verdict
    decided_by: DecidedBy
    seconds: float
    margin: float | None = None
    reason: str = ""
    target: int | None = None
    deployed: bool | None = None
    witness: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    points: FloatArray | None = None


class _Record(BaseModel):
    """The column `record`."""

    model_config = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")

    margin: float | None
    reason: str
    target: int | None
    deployed: bool | None = None
    witness: str = ""
    stage_seconds: dict[str, float]


class VerdictStore:
    """A SQLite file of verdicts, which several processes may share; one thread per instance.

    What `put` has done when it returns survives the death of the process, and a death in its midst
    leaves the entry as it was.

    Raises:
        CertiflowError: the file cannot be used, with the reason and the remedy. From any method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CertiflowError(
                f"{path}: its folder cannot be made ({error.strerror}); name another path"
            ) from error
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> VerdictStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def get(self, key: VerdictKey) -> StoredVerdict | None:
        """The verdict, or None if there is none that can be read without doubt."""
        columns = "verdict, decided_by, seconds, record, points"
        with self._explained():
            row = self._connection.execute(
                f"SELECT {columns} FROM verdicts {WHERE_KEY}", astuple(key)
            ).fetchone()
        return None if row is None else _parse(*row)

    def put(self, key: VerdictKey, verdict: StoredVerdict) -> None:
        """Adds the verdict, in place of one with the same key; committed when this returns."""
        record = _Record(
            margin=verdict.margin,
            reason=verdict.reason,
            target=verdict.target,
            deployed=verdict.deployed,
            witness=verdict.witness,
            stage_seconds=verdict.stage_seconds,
        )
        row = (
            *astuple(key),
            verdict.verdict.value,
            verdict.decided_by.value,
            verdict.seconds,
            record.model_dump_json(),
            None if verdict.points is None else _to_blob(verdict.points),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._explained(), self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            )

    def _prepare(self) -> None:
        """Makes a new file a store; every step can be repeated, as a death may come between any."""
        self._connection.text_factory = bytes  # invalid UTF-8 is then found in `_parse`
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise CertiflowError(
                f"{self._path}: written by a newer certiflow (schema {version}, this one reads "
                f"{SCHEMA_VERSION}); update certiflow, or {MOVE_AWAY}"
            )
        # A commit is then a write to the log, which the system keeps when the process is killed.
        # NORMAL does without a wait for the disk: only a power cut can lose the last commits.
        self._switch_to_log()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            strict = "STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS verdicts ({COLUMNS}) {strict}")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _switch_to_log(self) -> None:
        """SQLite itself does not wait when several processes switch a new file at once."""
        deadline = monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise
            sleep(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what the world can do to a file into one line with a remedy."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
            if code not in REMEDIES:  # our own mistake
                raise
            raise CertiflowError(
                f"{self._path}: cannot be used for verdicts ({error}); {REMEDIES[code]}"
            ) from error


def _parse(
    verdict: bytes, decided_by: bytes, seconds: float, record: bytes, points: bytes | None
) -> StoredVerdict | None:
    """The verdict of a row, or None if any of it is damaged: a verdict is never guessed."""
    try:
        return StoredVerdict(
            verdict=Verdict(verdict.decode()),
            decided_by=DecidedBy(decided_by.decode()),
            seconds=float(seconds),
            **dict(_Record.model_validate_json(record)),
            points=None if points is None else _from_blob(points),
        )
    except ValueError:  # of all four: unknown word, invalid UTF-8, JSON or array
        return None


def _to_blob(points: FloatArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(points, dtype=np.float64), allow_pickle=False)
    return buffer.getvalue()


def _from_blob(blob: bytes) -> FloatArray:
    """Raises ValueError when `blob` is not exactly one saved float64 array."""
    buffer = io.BytesIO(blob)
    try:
        points: FloatArray = np.lib.format.read_array(buffer, allow_pickle=False)
    except Exception as error:  # NumPy raises half a dozen kinds on a damaged header
        raise ValueError("damaged array") from error
    if points.dtype != np.float64 or buffer.read(1):
        raise ValueError("damaged array")
    return points
