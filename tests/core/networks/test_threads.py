"""Parts in threads come in their order, and parts of parts wait for nobody."""

from __future__ import annotations

import numba
import pytest

from tasks.core.networks import threads


def test_parts_of_parts_are_done_in_their_parts_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of a pool's threads would wait for one of them to be free."""
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    threads._threads.cache_clear()

    def inner(part: int) -> int:
        return part + 1

    def outer(part: int) -> list[int]:
        return threads.in_threads(inner, [part, 10 * part, 100 * part])

    found = threads.in_threads(outer, range(8))
    threads._threads().shutdown()
    threads._threads.cache_clear()
    assert found == [[part + 1, 10 * part + 1, 100 * part + 1] for part in range(8)]
