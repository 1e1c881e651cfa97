"""Figures that lay several versions over each other; drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.core.evidence.comparison import Evidence
from tasks.core.evidence.figures import DECIDED_COLORS, decided_label, verified_points
from tasks.core.evidence.metrics import decided_by_counts, verification_summary
from tasks.core.evidence.radius_figures import radius_shares

SIZE = (6.0, 4.2)  # inches: its text can still be read at a phone's width
BESIDE = 0.015  # of the axis, between the versions' diamonds at one radius
LEGEND_ROW = 0.2  # inches
EPSILON = "epsilon (L∞ radius)"


def curves(versions: Mapping[str, Evidence], epsilon: float) -> Figure:
    """Accuracy against epsilon: between what is proved and what attacks leave, a band a version.

    Lines and bands are over the whole test set (linear bounds, PGD), the diamonds over the verified
    points (the whole ladder, see `verified_points`); the reference radius is dotted.
    """
    figure, axes = _figure()
    step = BESIDE * max(float(each.verification["epsilon"].max()) for each in versions.values())
    for place, (name, evidence) in enumerate(versions.items()):
        color, points = f"C{place}", evidence.points
        radii = points["epsilons"]
        proved, attacked = points["certified"].mean(axis=1), points["pgd"].mean(axis=1)
        axes.fill_between(radii, proved, attacked, color=color, alpha=0.15)
        axes.plot(radii, attacked, "s-", color=color, markersize=4, label=f"{name}: under PGD")
        axes.plot(radii, proved, "v--", color=color, markersize=4, label=f"{name}: proved")
        test_size, shift = points["pgd"].shape[1], place * step
        summary = verification_summary(evidence.verification, test_size=test_size)
        verified_points(axes, summary, color, f"{name}: ", shift)
    axes.axvline(epsilon, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel=EPSILON, ylabel="accuracy", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    rows = -(-len(axes.get_legend_handles_labels()[1]) // 2)
    figure.set_figheight(SIZE[1] + LEGEND_ROW * rows)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def stages(versions: Mapping[str, Evidence], epsilon: float) -> Figure:
    """Which stage decided how many of the sampled points at the radius: a bar a version."""
    tables = {}
    for name, evidence in versions.items():
        table = evidence.verification
        tables[name] = table[np.isclose(table["epsilon"], epsilon)]
    counts = {name: decided_by_counts(table) for name, table in tables.items() if len(table)}
    figure, axes = _figure()
    height = min(figure.get_figheight(), 1.5 + 0.6 * len(tables))  # bars, not slabs
    figure.set_figheight(height)
    left = pd.Series(0.0, index=list(tables))
    for what, color in DECIDED_COLORS.items():
        widths = pd.Series(
            {
                name: counts[name][what].sum() if what in counts.get(name, ()) else 0
                for name in tables
            }
        )
        if widths.any():
            axes.barh(widths.index, widths, left=left, color=color, label=decided_label(what))
        left += widths
    undecided = pd.Series({name: len(table) for name, table in tables.items()}) - left
    if undecided.any():
        axes.barh(
            undecided.index, undecided, left=left, color="0.85", hatch="//", label="undecided"
        )
    axes.set(xlabel="points")
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def radii(versions: Mapping[str, Evidence]) -> Figure | None:
    """Share of points proved up to each radius, and not broken below it; None without brackets."""
    known = {name: each.radii for name, each in versions.items() if each.radii is not None}
    if not known:
        return None
    figure, axes = _figure()
    top = max(float(table["proved"].max()) for table in known.values()) * 1.1 or 0.01
    for place, (name, table) in enumerate(known.items()):
        edges, proved, unbroken = radius_shares(table, top)
        axes.fill_between(edges, proved, unbroken, step="pre", color=f"C{place}", alpha=0.2)
        axes.step(
            edges, proved, where="pre", color=f"C{place}", label=f"{name}: {len(table)} points"
        )
    axes.set(xlabel=EPSILON, ylabel="share of points", xlim=(0, top), ylim=(-0.02, 1.02))
    _finish(axes)
    return figure


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def svg(figure: Figure) -> str:
    """The drawing alone, to be put into a page: text stays text, and nothing is fetched."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "certiflow"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
