"""What was not accepted is kept whole, found by its digest, and within bounds."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.guard.answers import BUDGET, Answer, Decision
from tasks.core.guard.flagged import Flagged, FlaggedStore, digest_of


def flagged(number: int, received: float) -> Flagged:
    point = np.full((2, 2), number, dtype=np.float32)
    answer = Answer(number, number, Decision.FLAGGED, 0.0, BUDGET, float("nan"), point + 1)
    return Flagged(digest_of(point), received, "r", "c", "certiflow-x/1", 0.1, answer, point)


def test_it_comes_back_by_its_digest(tmp_path: Path) -> None:
    kept = [flagged(number, time.time()) for number in range(3)]
    with closing(FlaggedStore(str(tmp_path / "guard.db"))) as store:
        store.add(kept)
    with closing(FlaggedStore(f"sqlite:///{tmp_path / 'guard.db'}")) as store:
        assert len(store) == 3
        found = store.find(kept[1].digest[:12])
        assert found is not None
        np.testing.assert_array_equal(found[0], kept[1].point.ravel())
        assert found[1:] == (1, 0.1, "certiflow-x/1")
        assert store.find("no digest") is None


def test_a_digest_is_of_the_numbers_alone() -> None:
    point = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest_of(point) == digest_of(point.T.copy().T) == digest_of(point.astype(">f4"))
    assert digest_of(point) != digest_of(point + 1)


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    now = time.time()
    with closing(FlaggedStore(str(tmp_path / "guard.db"))) as store:
        store.add([flagged(number, now - 86_400 * (10 - number)) for number in range(10)])
        store.trim(most_rows=100, most_days=5.5)
        assert len(store) == 5
        store.trim(most_rows=2, most_days=30)
        assert len(store) == 2
        assert store.find(flagged(9, now).digest) is not None
        assert store.find(flagged(7, now).digest) is None
        store.trim(most_rows=2, most_days=30)
        assert len(store) == 2


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "guard.db").write_text("not a database" * 100)
    with pytest.raises(CertiflowError, match="the database cannot be used"):
        FlaggedStore(str(tmp_path / "guard.db"))
