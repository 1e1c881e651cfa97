"""The figures of a run; drawn without a display."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.core.attacks import Images
from tasks.core.files import written_atomically
from tasks.core.specification import IntArray

DPI = 120


def robustness_curve(
    grid: pd.DataFrame, verification: pd.DataFrame, title: str, path: Path
) -> None:
    """Accuracy against epsilon: what attacks leave (upper) and what is proved (lower)."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
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
    points = int(verification.iloc[0][["robust", "falsified", "unknown", "timeout", "error"]].sum())
    proved = verification["certified_accuracy"]
    undecided = (verification["unbroken_accuracy"] - proved).clip(lower=0)
    axes.errorbar(
        verification["epsilon"],
        proved,
        yerr=[np.zeros(len(proved)), undecided],
        fmt="D",
        color="tab:purple",
        markersize=5,
        capsize=4,
        label=f"verified, {points} points: proved, and up to unbroken",
    )
    axes.set(
        xlabel="epsilon (L∞ radius, pixels in [0, 1])",
        ylabel="accuracy",
        ylim=(-0.02, 1.02),
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


@dataclass(frozen=True, eq=False)
class AdversarialExamples:
    """Images under attack at each epsilon: points (epsilons, n, …), labels and confidences."""

    epsilons: list[float]
    images: Images
    labels: IntArray
    points: Images
    predictions: IntArray
    confidences: NDArray[np.float32]


def adversarial_examples(examples: AdversarialExamples, path: Path) -> None:
    """A grid: a row per image; clean, then perturbation and adversarial image per epsilon."""
    count, columns = len(examples.images), 2 * len(examples.epsilons)
    figure = Figure(figsize=(1.15 * columns + 0.6, 1.5 * count + 0.7), layout="constrained")
    axes = figure.subplots(count, columns, squeeze=False)
    for row in range(count):
        clean, label = examples.images[row], examples.labels[row]
        for index, epsilon in enumerate(examples.epsilons):
            point = examples.points[index, row]
            difference, picture = axes[row, 2 * index], axes[row, 2 * index + 1]
            if index == 0:
                difference.imshow(clean, cmap="gray", vmin=0, vmax=1)
                difference.set_xlabel(f"label {label}", fontsize=8)
            else:
                difference.imshow(point - clean, cmap="RdBu", vmin=-epsilon, vmax=epsilon)
            picture.imshow(point, cmap="gray", vmin=0, vmax=1)
            predicted = examples.predictions[index, row]
            picture.set_xlabel(
                f"{predicted} ({examples.confidences[index, row]:.0%})",
                fontsize=8,
                color="tab:green" if predicted == label else "tab:red",
            )
            if row == 0:
                difference.set_title("clean" if index == 0 else "change", fontsize=8)
                picture.set_title(f"ε = {epsilon:g}", fontsize=9)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    figure.suptitle("FGSM: predicted label and confidence (green: right, red: wrong)", fontsize=10)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with written_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
