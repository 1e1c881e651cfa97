"""The figure of critical radii; drawn without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.arrays import FloatArray
from tasks.core.evidence.figures import blank, save

CLASS_POINTS = 10  # a curve of fewer says nothing of its class


def radius_curves(
    table: pd.DataFrame, max_epsilon: float, title: str, unit: str, path: Path
) -> None:
    """Share of points proved at least up to each epsilon: over all, and by class where it has many.

    The band over all points ends at the share that nothing falsifies below epsilon. `table` is a
    `radius_table` of at least one point.
    """
    figure = blank(7.5, 4.8)
    axes = figure.subplots()
    radii, proved, unbroken = radius_shares(table, max_epsilon)
    for place, (label, rows) in enumerate(table.groupby("label")):
        if len(rows) < CLASS_POINTS or len(rows) == len(table):
            continue
        axes.step(
            radii,
            _share_from(rows["proved"], radii),
            where="pre",
            color=f"C{place}",
            linewidth=0.9,
            alpha=0.8,
            label=f"class {label}, {len(rows)} points",
        )
    everything = f"all {len(table)} points"
    axes.fill_between(radii, proved, unbroken, step="pre", color="0.5", alpha=0.3, label="neither")
    axes.step(
        radii,
        proved,
        where="pre",
        color="black",
        linewidth=2,
        label=f"all {len(table)} points: proved",
    )
    axes.step(
        radii,
        unbroken,
        where="pre",
        color="black",
        linestyle=":",
        label=f"{everything}: not falsified",
    )
    axes.set(
        xlabel=f"epsilon (L∞ radius, {unit})",
        ylabel="share of points",
        xlim=(0, max_epsilon),
        ylim=(-0.02, 1.02),
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    save(figure, path)


def radius_shares(
    table: pd.DataFrame, max_epsilon: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Radii, the share of a `radius_table` proved at least up to each, and that unbroken below."""
    radii = np.unique(
        [0.0, max_epsilon, *table["proved"], *table["falsified"].clip(0, max_epsilon)]
    )
    return radii, _share_from(table["proved"], radii), _share_from(table["falsified"], radii)


def _share_from(values: pd.Series, radii: FloatArray) -> FloatArray:
    """Share of values that are positive and at least each radius; steps hold to their right end."""
    numbers = values.to_numpy()
    shares: FloatArray = ((numbers >= radii[:, None]) & (numbers > 0)).mean(axis=1)
    return shares
