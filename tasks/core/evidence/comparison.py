"""What model versions are compared by, and whether two of them differ beyond sampling error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.evidence.metrics import is_deployed
from tasks.core.evidence.paired import Difference, median_difference, share_difference
from tasks.core.evidence.radii import radius_summary
from tasks.core.evidence.sampling import share_interval
from tasks.core.verdicts import Verdict

MEASURES = (
    "certified_accuracy",
    "median_radius",
    "pgd_accuracy",
    "fgsm_accuracy",
    "clean_accuracy",
)  # versions are ranked by them, in this order
DEPLOYED = "certified_deployed_accuracy"  # told beside the first, not ranked by
SHARES_OF_A_SAMPLE = ("certified_accuracy", DEPLOYED)
COSTS = ("parameters", "train_seconds", "verification_seconds")  # then by these, less is better


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run found, point by point.

    Attributes:
        data: digest of the dataset; points of different datasets are never compared.
        points: `epsilons` (k,), `clean` (n,), and `fgsm`, `pgd`, `certified` (k, n), over the test
            set; see `tasks.attack.test_points`.
        verification: a `verification_table`.
        radii: a `radius_table`, or None.
        costs: by the names in `COSTS`.
    """

    data: str
    points: Mapping[str, NDArray[Any]]
    verification: pd.DataFrame
    radii: pd.DataFrame | None
    costs: Mapping[str, float]

    def values(self, measure: str, epsilon: float) -> pd.Series | None:
        """What the measure sums up, by test point: whether it holds, or the radius proved.

        None where the run does not tell, such as at a radius that it did not look at.
        """
        if measure in SHARES_OF_A_SAMPLE:
            table = self.verification[np.isclose(self.verification["epsilon"], epsilon)]
            if measure == DEPLOYED and "deployed" not in table:
                return None
            robust = table["verdict"] == Verdict.ROBUST.value
            counted = is_deployed(table) if measure == DEPLOYED else robust
            found = pd.Series(counted.to_numpy(), index=table["sample_index"])
        elif measure == "median_radius":
            if self.radii is None:
                return None
            found = self.radii.set_index("sample_index")["proved"]
        elif measure == "clean_accuracy":
            found = pd.Series(self.points["clean"])
        else:
            rows = np.flatnonzero(np.isclose(self.points["epsilons"], epsilon))
            if len(rows) == 0:
                return None
            found = pd.Series(self.points[measure.removesuffix("_accuracy")][rows[0]])
        return found if len(found) else None

    @property
    def is_whole(self) -> bool:
        """Whether all test points were verified."""
        return self.verification["sample_index"].nunique() == len(self.points["clean"])

    def certified_deployed_accuracy(self, epsilon: float) -> float | None:
        """The share proved of the float32 model as it is served; None where nobody asked."""
        values = self.values(DEPLOYED, epsilon)
        return None if values is None else float(values.mean())

    def points_behind(self, epsilon: float) -> dict[str, int]:
        """How many points each measure that is known sums up."""
        known = {measure: self.values(measure, epsilon) for measure in (*MEASURES, DEPLOYED)}
        return {measure: len(values) for measure, values in known.items() if values is not None}

    def intervals(self, epsilon: float) -> dict[str, tuple[float, float]]:
        """The `share_interval` of each share of the verified sample; none of the whole test set."""
        if self.is_whole:
            return {}
        known = {measure: self.values(measure, epsilon) for measure in SHARES_OF_A_SAMPLE}
        return {
            measure: share_interval(int(values.sum()), len(values))
            for measure, values in known.items()
            if values is not None
        }

    def measures(self, epsilon: float) -> dict[str, float | None]:
        """Every measure at the radius."""
        found: dict[str, float | None] = {}
        for measure in MEASURES:
            values = self.values(measure, epsilon)
            if values is None:
                found[measure] = None
            elif measure == "median_radius" and self.radii is not None:
                found[measure] = radius_summary(self.radii).proved_quantiles[0.5]
            else:
                found[measure] = float(values.mean())
        return found


def differences(
    new: Evidence, old: Evidence, epsilon: float, significance: float
) -> dict[str, Difference]:
    """Of each measure that both tell of the same points: those that both looked at."""
    found: dict[str, Difference] = {}
    if new.data != old.data:
        return found
    for measure in MEASURES:
        ours, theirs = new.values(measure, epsilon), old.values(measure, epsilon)
        if ours is None or theirs is None:
            continue
        common = ours.index.intersection(theirs.index)
        if len(common) == 0:
            continue
        compare = median_difference if measure == "median_radius" else share_difference
        found[measure] = compare(ours[common].to_numpy(), theirs[common].to_numpy(), significance)
    return found


def rank(measures: Mapping[str, float | None], costs: Mapping[str, float]) -> tuple[float, ...]:
    """Sorts the best first; what is not known comes after what is."""
    known = [-value if value is not None else np.inf for value in map(measures.get, MEASURES)]
    return (*known, *(costs.get(cost, np.inf) for cost in COSTS))
