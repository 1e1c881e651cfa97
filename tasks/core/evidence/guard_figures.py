"""The figure of a guarded version: what attackers reach, and from how far; without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.arrays import FloatArray
from tasks.core.evidence.figures import blank, save


def attack_curves(attacks: pd.DataFrame, distances: FloatArray, title: str, path: Path) -> None:
    """Left: the share of inputs that each attack gets accepted with another label, by radius.

    Right: how far an accepted wrong answer is proved to lie, of the share of clean inputs.
    """
    figure = blank(11, 4.6)
    left, right = figure.subplots(1, 2)
    for mark, (name, rows) in zip("osv^", attacks.groupby("attack", sort=False), strict=False):
        share = rows["accepted_adversarial"] / rows["points"]
        left.plot(rows["radius"], share, f"{mark}-", label=str(name))
    epsilon = float(attacks.loc[attacks["factor"] == 1, "radius"].iloc[0])
    left.axvspan(0, epsilon, color="tab:green", alpha=0.12, label="excluded by the proof")
    left.set(xlabel="radius of the attack", ylabel="share accepted with another label", title=title)
    left.set_ylim(-0.02, max(1.1 * left.get_ylim()[1], 0.1))
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    ordered = np.sort(distances)
    right.step(ordered, 1 - np.arange(len(ordered)) / max(len(ordered), 1), where="pre")
    right.axvline(2 * epsilon, color="0.6", linestyle=":", label="twice epsilon")
    right.set(
        xlabel="proved distance of any accepted wrong answer",
        ylabel="share of accepted clean inputs",
        ylim=(-0.02, 1.02),
        title=f"{len(ordered)} accepted clean inputs",
    )
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    save(figure, path)
