"""A thread that stores what was not accepted: a slow or full disk keeps no answer waiting."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from flows.guard.metrics import Metrics
from tasks.core.errors import first_line
from tasks.core.guard.flagged import Flagged, FlaggedStore
from tasks.guarding.settings import GuardSettings

WAITING = 1024  # requests; what comes while so many wait is not stored, and counted
MOST = 256  # rows in one transaction
TRIMMED_EVERY = 256  # rows: bounds are kept to about that many


class Keeper:
    """Takes rows from any thread, and writes them in its own."""

    def __init__(self, settings: GuardSettings, metrics: Metrics) -> None:
        """Raises `CertiflowError` where the store cannot be used."""
        self._store, self._settings, self._metrics = (
            FlaggedStore(str(settings.store)),
            settings,
            metrics,
        )
        self.trouble = ""
        self._waiting: queue.Queue[Flagged | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._write, name="keeper", daemon=True)
        self._thread.start()

    def keep(self, flagged: Flagged) -> None:
        """Never waits."""
        try:
            self._waiting.put_nowait(flagged)
        except queue.Full:
            self._metrics.not_stored.labels("queue full").inc()

    def close(self) -> None:
        """Writes what waits."""
        self._waiting.put(None)
        self._thread.join()
        self._store.close()

    def _write(self) -> None:
        since_trim = TRIMMED_EVERY
        while (first := self._waiting.get()) is not None:
            rows, is_last = [first], False
            with suppress(queue.Empty):
                while len(rows) < MOST and not is_last:
                    more = self._waiting.get_nowait()
                    if more is None:
                        is_last = True
                    else:
                        rows.append(more)
            try:
                self._store.add(rows)
                since_trim += len(rows)
                if since_trim >= TRIMMED_EVERY:
                    self._store.trim(self._settings.store_rows, self._settings.store_days)
                    since_trim = 0
                self.trouble = ""
                self._metrics.stored.inc(len(rows))
            except (SQLAlchemyError, OSError) as error:
                self.trouble = f"inputs are not stored: {first_line(error)}"
                self._metrics.not_stored.labels("database").inc(len(rows))
            if is_last:
                return
