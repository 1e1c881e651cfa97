"""Ctrl-C waits for SQLite: a transaction that it cuts off would lock the store until the end.

SQLAlchemy's connection then stays open in a frame of the interrupt's traceback, and with it the
lock: that the run ended could be told to nobody. Other databases and servers are waited for too
long to be deaf meanwhile, and lock a row at most.
"""

from __future__ import annotations

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction

from tasks.interrupts import hold, release

HOLDS = "certiflow_holds"  # in a session's own notes


def keep_whole() -> None:
    """Makes interrupts wait for the end of every transaction on SQLite in this process."""
    if not event.contains(Session, "after_begin", _begun):
        event.listen(Session, "after_begin", _begun)
        event.listen(Session, "after_transaction_end", _ended)


def _begun(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if connection.dialect.name == "sqlite" and not session.info.get(HOLDS):
        session.info[HOLDS] = True
        hold()


def _ended(session: Session, transaction: SessionTransaction) -> None:
    """After the outermost has given its connection back."""
    if transaction.parent is None and session.info.pop(HOLDS, False):
        release()
