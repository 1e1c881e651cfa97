"""Counterexamples with the fewest changes, which people can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tasks.core.arrays import Float32Array
from tasks.core.properties.domain import Domain

Rows = Sequence[Float32Array]


def fewest_changes(
    domain: Domain,
    center: Float32Array,
    rows: Rows,
    still: Callable[[Rows], bool],
    kept: Sequence[str] = (),
) -> Rows:
    """The rows, (inputs,) each, with every feature put back to the center's that need not differ.

    Features are tried one after another, those that moved least first, in all rows at once; `kept`
    are left alone. `still` says whether rows show what they are to show; the given ones do. None of
    the changes left can be taken back alone.
    """
    spans = np.where(domain.upper > domain.lower, domain.upper - domain.lower, 1.0)
    moved = {
        name: max(float(np.max(np.abs(row - center)[at] / spans[at])) for row in rows)
        for name, at in domain.columns.items()
        if name not in kept
    }
    for name in sorted((name for name in moved if moved[name] > 0), key=lambda name: moved[name]):
        back = [row.copy() for row in rows]
        for row in back:
            row[domain.columns[name]] = center[domain.columns[name]]
        if still(back):
            rows = back
    return rows
