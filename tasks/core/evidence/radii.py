"""Critical radii as a table, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from tasks.core.verification.critical_radius import Bracket

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def radius_table(brackets: Sequence[Bracket]) -> pd.DataFrame:
    """One row per point; what `tables/radius.csv` holds. `falsified` is infinite where unbroken."""
    columns = [
        "sample_index",
        "label",
        "proved",
        "falsified",
        "seconds",
        "probes",
        "complete",
        "reason",
    ]
    rows = [[getattr(bracket, name) for name in columns] for bracket in brackets]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class RadiusSummary:
    """What a `radius_table` says of a model; misclassified points count with radius 0.

    Attributes:
        mean: of `proved`.
        proved_quantiles, falsified_quantiles: values of the sample by share, rounded to the side
            that claims less: down for `proved`, up for `falsified`, which may be infinite.
        share_complete: of the points whose bracket is as narrow as asked.
        class_means: mean of `proved` by label.
    """

    mean: float
    proved_quantiles: dict[float, float]
    falsified_quantiles: dict[float, float]
    share_complete: float
    class_means: dict[int, float]


def radius_summary(table: pd.DataFrame) -> RadiusSummary:
    """The numbers by which two versions of a model are compared, from at least one point."""
    means = table.groupby("label")["proved"].mean()
    proved, falsified = table["proved"].to_numpy(), table["falsified"].to_numpy()
    return RadiusSummary(
        mean=float(proved.mean()),
        proved_quantiles={q: float(np.quantile(proved, q, method="lower")) for q in QUANTILES},
        falsified_quantiles={
            q: float(np.quantile(falsified, q, method="higher")) for q in QUANTILES
        },
        share_complete=float(table["complete"].mean()),
        class_means={int(label): float(mean) for label, mean in means.items()},
    )
