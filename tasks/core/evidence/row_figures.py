"""The figure of attacked table rows: what was changed, in the table's own words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.core.evidence.figures import AdversarialExamples, blank, save
from tasks.core.evidence.names import one_line
from tasks.core.properties.domain import Domain, told

MOST_CHANGES = 6  # of a row, those that move farthest
CHARACTERS = 30  # of a feature's name


def adversarial_rows(
    examples: AdversarialExamples,
    domain: Domain,
    class_names: tuple[str, ...],
    path: Path,
    *,
    confident: bool = True,
) -> None:
    """A line per row: at the least epsilon that breaks it, else the greatest, what FGSM changes.

    Labels are shown with their probabilities where the model is `confident` of some.
    """
    count, names = len(examples.labels), [one_line(name, CHARACTERS) for name in class_names]
    figure = blank(7.5, 0.4 + 0.19 * count * (MOST_CHANGES + 3))
    axes = figure.subplots(count, 1, squeeze=False)[:, 0]
    for row, panel in enumerate(axes):
        index = _shown(examples, row)
        predicted = int(examples.predictions[index, row])
        is_right = predicted == examples.labels[row]
        share = f" ({examples.confidences[index, row]:.0%})" if confident else ""
        panel.set_title(
            f"{names[int(examples.labels[row])]}, at ε = {examples.epsilons[index]:g} taken "
            f"for {names[predicted]}{share}",
            fontsize=10,
            loc="left",
            color="tab:green" if is_right else "tab:red",
        )
        panel.text(
            0.01,
            0.95,
            "\n".join(_changes(examples, domain, index, row)) or "nothing changes",
            family="monospace",
            fontsize=8,
            verticalalignment="top",
            transform=panel.transAxes,
        )
        panel.set_axis_off()
    figure.suptitle("FGSM on rows of the table (green: still right, red: wrong)", fontsize=11)
    save(figure, path)


def _shown(examples: AdversarialExamples, row: int) -> int:
    wrong = np.flatnonzero(examples.predictions[:, row] != examples.labels[row])
    return int(wrong[0]) if len(wrong) else len(examples.epsilons) - 1


def _changes(examples: AdversarialExamples, domain: Domain, index: int, row: int) -> list[str]:
    before, after = examples.points[0, row], examples.points[index, row]
    changed = domain.changes(before, after)
    units = {feature.name: feature.unit for feature in domain.features}
    lines = [
        f"{one_line(name, CHARACTERS):<{CHARACTERS}} {told(old):>14} → {told(new):<14} "
        f"{one_line(units[name], CHARACTERS)}"
        for name, (old, new) in list(changed.items())[:MOST_CHANGES]
    ]
    more = len(changed) - len(lines)
    return [*lines, f"and {more} more"] if more else lines
