"""The figures of a run; drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array, Inputs, IntArray
from tasks.core.evidence.names import one_line
from tasks.core.evidence.sampling import CONFIDENCE
from tasks.core.files import written_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
CHARACTERS = 16  # of a class's name beside an image
SCALE_HEIGHT = 0.06  # of a scale of colours, in panels


def robustness_curve(
    grid: pd.DataFrame, verification: pd.DataFrame, title: str, unit: str, path: Path
) -> None:
    """Accuracy against epsilon, in `unit`: what attacks leave (upper), what is proved (lower)."""
    figure = blank(7.5, 4.8)
    axes = figure.subplots()
    axes.axhline(grid["clean_accuracy"].iloc[0], color="0.6", linestyle=":", label="clean accuracy")
    axes.plot(grid["epsilon"], grid["fgsm_accuracy"], "o-", color="tab:blue", label="under FGSM")
    axes.plot(grid["epsilon"], grid["pgd_accuracy"], "s-", color="tab:orange", label="under PGD")
    axes.plot(
        grid["epsilon"],
        grid["certified_accuracy"],
        "v-",
        color="tab:green",
        label="proved by linear bounds",
    )
    axes.fill_between(
        grid["epsilon"],
        grid["certified_accuracy"],
        grid["pgd_accuracy"],
        color="tab:orange",
        alpha=0.12,
        label="neither broken nor proved by bounds",
    )
    verified_points(axes, verification, "tab:purple")
    axes.plot(
        verification["epsilon"],
        verification["certified_deployed_accuracy"],
        "x",
        color="black",
        markersize=5,
        zorder=5,  # on the diamonds
        label=f"{'' if 'exact_accuracy' in verification else 'sampled, '}proved of the float32 "
        "model too",
    )
    axes.set(
        xlabel=f"epsilon (L∞ radius, {unit})",
        ylabel="accuracy",
        ylim=(-0.02, 1.02),
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path)


def verified_points(
    axes: Axes, summary: pd.DataFrame, color: str, whose: str = "", shift: float = 0.0
) -> None:
    """The exact curve where all test points were verified, else what is known of a sample."""
    if "exact_accuracy" in summary:
        _exact(axes, summary, color, whose)
    else:
        _sample(axes, summary, color, whose, shift)


def _exact(axes: Axes, summary: pd.DataFrame, color: str, whose: str) -> None:
    """A line through what is proved, and where they differ a band up to what is not broken."""
    epsilons, low, high = (
        summary[name] for name in ("epsilon", "exact_accuracy", "exact_accuracy_high")
    )
    told = f"exact: all {summary['points'].max():,.0f} points decided"
    undecided = high > low
    if undecided.any():
        told = f"exact to within {(high - low).max():.2%} of the points"
        axes.fill_between(
            epsilons, low, high, color=color, alpha=0.3, label=f"{whose}neither broken nor proved"
        )
    axes.plot(
        epsilons,
        low,
        "D-",
        color=color,
        markersize=4,
        markerfacecolor="white" if whose else color,
        label=f"{whose}{told}",
    )


def _sample(axes: Axes, summary: pd.DataFrame, color: str, whose: str, shift: float) -> None:
    """Shares proved with their intervals, and, wide and pale, from there up to the unbroken.

    `shift` in epsilon keeps several beside each other.
    """
    proved, places = summary["certified_accuracy"], summary["epsilon"] + shift
    undecided = (summary["unbroken_accuracy"] - proved).clip(lower=0)
    points = f"{summary['points'].max():.0f} sampled points"
    axes.errorbar(
        places,
        proved,
        yerr=[
            proved - summary["certified_accuracy_low"],
            summary["certified_accuracy_high"] - proved,
        ],
        fmt="D",
        color=color,
        markersize=5,
        markerfacecolor="white" if whose else color,
        capsize=4,
        label=f"{whose}proved of {points}, {CONFIDENCE:.0%} interval",
    )
    if undecided.any():
        axes.vlines(
            places,
            proved,
            proved + undecided,
            color=color,
            alpha=0.25,
            linewidth=7,
            label=f"{whose}neither broken nor proved of these",
        )


@dataclass(frozen=True, eq=False)
class AdversarialExamples:
    """Inputs under attack: points (epsilons, n, …) with the model's labels and confidences.

    The first epsilon is 0: the clean images.
    """

    epsilons: list[float]
    labels: IntArray
    points: Inputs
    predictions: IntArray
    confidences: Float32Array


def adversarial_examples(
    examples: AdversarialExamples, class_names: Sequence[str], path: Path
) -> None:
    """A row per image: the clean image, then the change and the adversarial image per epsilon.

    Below the changes is their scale, from -epsilon to epsilon: it differs by column.
    """
    count, columns = len(examples.labels), 2 * len(examples.epsilons) - 1
    figure = blank(1.2 * columns, 1.45 * count + 0.9)
    heights = [*[1.0] * count, SCALE_HEIGHT]
    *rows, scales = figure.subplots(count + 1, columns, squeeze=False, height_ratios=heights)
    axes = np.array(rows)
    for row, label in enumerate(examples.labels):
        axes[row, 0].set_ylabel(one_line(class_names[label], CHARACTERS), fontsize=9)
    for index, epsilon in enumerate(examples.epsilons):
        _attacked(axes[:, 2 * index], examples, class_names, index)
        scales[2 * index].remove()
        if epsilon > 0:
            _changes(figure, axes[:, 2 * index - 1], scales[2 * index - 1], examples, index)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    figure.suptitle("FGSM: predicted label and confidence (green: right, red: wrong)", fontsize=11)
    save(figure, path)


def _attacked(
    panels: NDArray[np.object_],
    examples: AdversarialExamples,
    class_names: Sequence[str],
    index: int,
) -> None:
    epsilon = examples.epsilons[index]
    panels[0].set_title(f"ε = {epsilon:g}" if epsilon > 0 else "clean", fontsize=10)
    for row, panel in enumerate(panels):
        predicted = examples.predictions[index, row]
        panel.imshow(examples.points[index, row], cmap="gray", vmin=0, vmax=1)
        panel.set_xlabel(
            f"{one_line(class_names[predicted], CHARACTERS)} "
            f"({examples.confidences[index, row]:.0%})",
            fontsize=9,
            color="tab:green" if predicted == examples.labels[row] else "tab:red",
        )


def _changes(
    figure: Figure,
    panels: NDArray[np.object_],
    scale: Axes,
    examples: AdversarialExamples,
    index: int,
) -> None:
    epsilon = examples.epsilons[index]
    panels[0].set_title(f"change, ε = {epsilon:g}", fontsize=9)
    for row, panel in enumerate(panels):
        change = examples.points[index, row] - examples.points[0, row]
        if change.ndim == 3:
            change = change.mean(axis=2)  # over the colours
        drawn = panel.imshow(change, cmap="RdBu", vmin=-epsilon, vmax=epsilon)
    ticks = [-epsilon, 0, epsilon]
    figure.colorbar(drawn, cax=scale, orientation="horizontal", ticks=ticks, format="%.3g")
    scale.tick_params(labelsize=7)


DECIDED_COLORS = {
    "interval robust": "#c7e9c0",
    "crown robust": "#74c476",
    "branch_and_bound robust": "#238b45",
    "marabou robust": "#00441b",
    "clean falsified": "#fdd0a2",
    "attack falsified": "#fd8d3c",
    "branch_and_bound falsified": "#d94801",
    "marabou falsified": "#7f2704",
    "marabou witnessed": "#bcbddc",
}


def decided_label(name: str) -> str:
    """A key of `DECIDED_COLORS` in words."""
    words = name.replace("_", " ").replace(" witnessed", ": witnessed, not proved")
    return words.replace(" robust", ": proved").replace(" falsified", ": broken")


def decided_by(counts: pd.DataFrame, num_points: int, title: str, unit: str, path: Path) -> None:
    """A bar per radius: which stage decided how many points, proofs below, the undecided on top."""
    from matplotlib.ticker import MaxNLocator

    figure = blank(7.5, 4.5)
    axes = figure.subplots()
    places, bottom = np.arange(len(counts)), np.zeros(len(counts))
    for name, color in DECIDED_COLORS.items():
        if name in counts:
            axes.bar(places, counts[name], bottom=bottom, color=color, label=decided_label(name))
            bottom += counts[name].to_numpy()
    left = num_points - bottom
    if left.any():
        axes.bar(places, left, bottom=bottom, color="0.85", hatch="//", label="undecided")
    axes.set(
        xticks=places,
        xticklabels=[f"{epsilon:g}" for epsilon in counts.index],
        xlabel=f"epsilon (L∞ radius, {unit})",
        ylabel="points",
        title=title,
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(fontsize=8, loc="outside right upper", reverse=True)  # as the bars are stacked
    save(figure, path)


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches, in which a name with dollars is no formula."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # most of a run's modules come before its figures

    mpl.rcParams["text.parse_math"] = False

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """As an image of the kind that the path's suffix names."""
    with written_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
