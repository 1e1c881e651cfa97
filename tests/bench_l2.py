"""`python -m tests.bench_l2`: the phishing networks within TabularBench's L2 distance, proved.

TabularBench attacks phishing pages within an L2 distance of 0.5 after scaling each feature to
[0, 1]. Here linear bounds over that ball, by the dual norm and within the features' bounds, say
what of the phishing pages of the test set stays detected, whatever an attacker does. Whole numbers
move by whole steps, as in every valid row: a binary feature, whose flip is a distance of 1, stays.
Relations are left out, which only helps the attacker.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.configuration import load_settings
from flows.processes import environment
from tasks.core.bounds.linear import margin_lower_bounds, preactivation_bounds
from tasks.core.properties.box import Ellipsoid
from tasks.core.properties.perturbation import Perturbation
from tasks.core.readers.keras_network import relu_network
from tasks.core.sources.download import fetch
from tasks.core.training import loop

CONFIGURATIONS = ("phishing", "phishing_defended", "phishing_defended_0.2")
RADII = (0.05, 0.1, 0.2, 0.5)
BATCH = 200


def main() -> None:
    """Trains both configurations and prints a row for each radius."""
    environment.prepare(verbose=False)
    table = Table(title="phishing pages of the test set that stay detected, proved")
    for column in ("configuration", "clean recall", *(f"L2 {radius:g}" for radius in RADII)):
        table.add_column(column, justify="right")
    for name in CONFIGURATIONS:
        settings, _ = load_settings(Path("conf") / f"{name}.yaml")
        fetch(settings.data.dataset, settings.data.cache)
        data = settings.data.load()
        trained = loop.train(data, settings.training, settings.seed)
        network = relu_network(trained.model)
        assert data.positive is not None
        rows = data.test_inputs[data.test_labels == data.positive].astype(np.float64)
        right = network(rows).argmax(axis=1) == data.positive
        shares = [right.mean()]
        spans = data.domain.upper - data.domain.lower
        scales = np.where(data.perturbation.up + data.perturbation.down > 0, spans, 0.0)
        for radius in RADII:
            proved = np.zeros(len(rows), dtype=bool)
            for start in range(0, len(rows), BATCH):
                centers = rows[start : start + BATCH]
                box = Perturbation(data.domain, scales, scales, scales).box(centers, radius)
                ball = Ellipsoid.within(box, centers, scales, radius)
                hidden = preactivation_bounds(network, ball, "crown")
                labels = [data.positive] * len(centers)
                lower = margin_lower_bounds(network, ball, labels, hidden)
                proved[start : start + BATCH] = (lower > 0).all(axis=1)
            shares.append((proved & right).mean())
        table.add_row(name, *(f"{share:.1%}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
