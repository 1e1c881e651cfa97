"""What a service did not accept, kept for people and for a second look, within bounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from tasks.core.arrays import Float32Array
from tasks.core.errors import CertiflowError, first_line
from tasks.core.files import sha256_of
from tasks.core.guard.answers import Answer

TABLE = sql.Table(
    "flagged",
    sql.MetaData(),
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("digest", sql.String(64), index=True, nullable=False),
    sql.Column("received", sql.Float, nullable=False),
    sql.Column("request", sql.String(64), nullable=False),
    sql.Column("client", sql.String(128), nullable=False),
    sql.Column("version", sql.String(256), nullable=False),
    sql.Column("epsilon", sql.Float, nullable=False),
    sql.Column("label", sql.Integer),
    sql.Column("decision", sql.String(16), nullable=False),
    sql.Column("decided_by", sql.String(32), nullable=False),
    sql.Column("margin", sql.Float),
    sql.Column("input", sql.LargeBinary, nullable=False),
    sql.Column("counterexample", sql.LargeBinary),
)


@dataclass(frozen=True, eq=False)
class Flagged:
    """An input that was not accepted, float32, and all that was said of it."""

    digest: str
    received: float
    request: str
    client: str
    version: str
    epsilon: float
    answer: Answer
    point: Float32Array

    def row(self) -> dict[str, object]:
        """As it is stored."""
        answer, margin = self.answer, self.answer.margin
        other = answer.counterexample
        return {
            "digest": self.digest,
            "received": self.received,
            "request": self.request,
            "client": self.client,
            "version": self.version,
            "epsilon": self.epsilon,
            "label": answer.label,
            "decision": answer.decision.value,
            "decided_by": answer.decided_by,
            "margin": margin if np.isfinite(margin) else None,
            "input": self.point.tobytes(),
            "counterexample": None if other is None else other.tobytes(),
        }


def digest_of(point: Float32Array) -> str:
    """SHA-256 of an input's float32 numbers, little-endian, in C order."""
    return sha256_of(np.ascontiguousarray(point, dtype="<f4").tobytes())


class FlaggedStore:
    """A table in SQLite or PostgreSQL."""

    def __init__(self, place: str) -> None:
        """`place` is a path, or an SQLAlchemy URL.

        Raises:
            CertiflowError: the database cannot be used.
        """
        url = place if "://" in place else f"sqlite:///{Path(place)}"
        try:
            self._engine = sql.create_engine(url)
            TABLE.metadata.create_all(self._engine)
        except SQLAlchemyError as error:
            raise CertiflowError(
                f"store: the database cannot be used ({first_line(error)}): name another one, or "
                "set store to null"
            ) from error

    def add(self, flagged: Sequence[Flagged]) -> None:
        """Raises `SQLAlchemyError` where it cannot be written, as when the disk is full."""
        with self._engine.begin() as connection:
            connection.execute(TABLE.insert(), [each.row() for each in flagged])

    def find(self, digest: str) -> tuple[Float32Array, int | None, float, str] | None:
        """The last input whose digest begins so, flat; the label told, epsilon and version."""
        chosen = sql.select(TABLE).where(TABLE.c.digest.startswith(digest))
        with self._engine.connect() as connection:
            row = connection.execute(chosen.order_by(TABLE.c.id.desc()).limit(1)).first()
        if row is None:
            return None
        return np.frombuffer(row.input, dtype=np.float32), row.label, row.epsilon, row.version

    def __len__(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(sql.select(sql.func.count(TABLE.c.id))).scalar_one())

    def close(self) -> None:
        self._engine.dispose()

    def trim(self, most_rows: int, most_days: float) -> None:
        """Forgets what is too old, and the oldest of what is too much; raises as `add`."""
        with self._engine.begin() as connection:
            oldest = time.time() - most_days * 86_400
            connection.execute(TABLE.delete().where(TABLE.c.received < oldest))
            newest = sql.select(TABLE.c.id).order_by(TABLE.c.id.desc()).offset(most_rows)
            last = connection.execute(newest.limit(1)).scalar()
            if last is not None:
                connection.execute(TABLE.delete().where(TABLE.c.id <= last))
