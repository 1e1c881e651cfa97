"""Counterexamples with the fewest changes."""

from __future__ import annotations

import numpy as np

from tasks.core.properties.domain import Domain, Feature
from tasks.core.verification.fewest import Rows, fewest_changes

DOMAIN = Domain.of_table(
    [
        Feature(name="a", upper=10),
        Feature(name="b", upper=10),
        Feature(name="kind", kind="category", categories=("x", "y")),
        Feature(name="c", lower=3, upper=3),
    ]
)
CENTER = np.array([1, 1, 1, 0, 3], np.float32)


def test_only_what_is_needed_stays_changed() -> None:
    changed = np.array([5, 2, 0, 1, 3], np.float32)

    def still(rows: Rows) -> bool:
        return bool(rows[0][0] >= 4)

    (found,) = fewest_changes(DOMAIN, CENTER, [changed], still)
    assert DOMAIN.changes(CENTER, found) == {"a": (1, 5)}
    (kept,) = fewest_changes(DOMAIN, CENTER, [changed], still, kept=("kind",))
    assert DOMAIN.changes(CENTER, kept) == {"a": (1, 5), "kind": ("x", "y")}
    np.testing.assert_array_equal(changed, [5, 2, 0, 1, 3])


def test_rows_are_put_back_together() -> None:
    first = np.array([5, 2, 1, 0, 3], np.float32)
    other = np.array([5, 2, 0, 1, 3], np.float32)
    found = fewest_changes(
        DOMAIN, CENTER, [first, other], lambda rows: bool(rows[0][1] == 2), kept=("kind",)
    )
    assert [DOMAIN.changes(CENTER, row) for row in found] == [
        {"b": (1, 2)},
        {"b": (1, 2), "kind": ("x", "y")},
    ]
