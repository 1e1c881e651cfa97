"""The numbers that versions are compared by, each defined once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.arrays import FloatArray, IntArray, Mask
from tasks.core.errors import ContradictionError
from tasks.core.evidence.sampling import share_interval
from tasks.core.verdicts import VERDICT_COLUMNS, WITNESSED_ONLY, Verdict, VerificationResult

FIRST = 1000  # the reference experiment attacked the first 1,000 test images

WORDS = {True: "yes", False: "no", None: ""}

STAGES = ("attack", "interval", "crown", "alpha_crown", "branch_and_bound", "marabou")


def epsilon_grid(
    epsilons: Sequence[float],
    labels: IntArray,
    clean_predictions: IntArray,
    fgsm_predictions: IntArray,
    pgd_broken: Mask,
    certified: Mask,
) -> pd.DataFrame:
    """One row per radius, over the whole test set; accuracies count clean mistakes as broken.

    Args:
        fgsm_predictions, pgd_broken, certified: shape (epsilons, n). `pgd_broken` includes what
            FGSM breaks.

    Raises:
        ContradictionError: unless certified <= PGD <= FGSM <= clean accuracy holds point by point.
    """
    right = clean_predictions == labels
    fgsm_right = right & (fgsm_predictions == labels)
    pgd_right = fgsm_right & ~pgd_broken
    if (certified & ~pgd_right).any():
        index, point = np.argwhere(certified & ~pgd_right)[0]
        raise ContradictionError(
            f"test image {point}: certified at epsilon {epsilons[index]:g}, yet an attack breaks "
            "it: this is a defect of certiflow; please report it with the run's artifacts"
        )
    return pd.DataFrame(
        {
            "epsilon": list(epsilons),
            "clean_accuracy": right.mean(),
            "fgsm_accuracy": fgsm_right.mean(axis=1),
            f"fgsm_accuracy_first_{FIRST}": fgsm_right[:, :FIRST].mean(axis=1),
            "fgsm_success_rate": success_rate(right, fgsm_right),
            "pgd_accuracy": pgd_right.mean(axis=1),
            "pgd_success_rate": success_rate(right, pgd_right),
            "certified_accuracy": certified.mean(axis=1),
        }
    )


def success_rate(right: Mask, right_under_attack: Mask) -> FloatArray:
    """Share of the correctly classified points, shape (n,), that an attack breaks, per epsilon."""
    broken = (right & ~right_under_attack).sum(axis=1)
    rate: FloatArray = broken / max(int(right.sum()), 1)
    return rate


def verification_table(results: Sequence[VerificationResult]) -> pd.DataFrame:
    """One row per point and radius; what `tables/verification.csv` holds.

    `deployed` says of what is robust whether the proof holds for the float32 model as well.
    """
    return pd.DataFrame(
        [
            {
                "sample_index": result.sample_index,
                "label": result.label,
                "epsilon": result.epsilon,
                "verdict": result.verdict.value,
                "decided_by": result.decided_by.value,
                "target": result.target,
                "seconds": round(result.seconds, 4),
                "margin": result.margin,
                "deployed": WORDS[result.deployed],
                "reason": result.reason,
                "witness": result.witness,
                **{
                    f"seconds_{stage}": round(result.stage_seconds.get(stage, 0.0), 4)
                    for stage in STAGES
                },
            }
            for result in results
        ]
    ).astype({"target": "Int64"})


def verification_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per radius of a `verification_table`: points per verdict, and what they prove.

    `certified_accuracy` is the share proved (a lower estimate of the robust accuracy),
    `certified_deployed_accuracy` the share proved of the float32 model as it is served,
    `unbroken_accuracy` the share not falsified (an upper one); over all `points` of the sample. The
    first two have their `share_interval` beside them, as `…_low` and `…_high`. `witnessed_only`
    counts those of the unknown points that Marabou alone found robust.
    """
    verdicts = [verdict.value for verdict in Verdict]
    counts = pd.crosstab(table["epsilon"], table["verdict"]).reindex(columns=verdicts, fill_value=0)
    points = counts.sum(axis=1)
    summary = counts.assign(
        witnessed_only=_count(table, is_witnessed_only(table)),
        certified_accuracy=counts[Verdict.ROBUST.value] / points,
        certified_deployed_accuracy=_count(table, is_deployed(table)) / points,
        unbroken_accuracy=1 - counts[Verdict.FALSIFIED.value] / points,
        seconds=table.groupby("epsilon")["seconds"].sum(),
    )
    return with_intervals(summary.reset_index())


def with_intervals(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with the number of `points`, and the `share_interval` of what they prove."""
    points = summary[list(VERDICT_COLUMNS)].sum(axis=1)
    columns: dict[str, Any] = {"points": points}
    for name in ("certified_accuracy", "certified_deployed_accuracy"):
        edges = [
            share_interval(round(share * count), count)
            for share, count in zip(summary[name], points.astype(int).tolist(), strict=True)
        ]
        columns[f"{name}_low"], columns[f"{name}_high"] = zip(*edges, strict=True)
    return summary.assign(**columns)


def is_deployed(table: pd.DataFrame) -> pd.Series:
    """Rows of a `verification_table` that are proved of the deployed float32 model.

    None are in the tables of versions that did not ask.
    """
    if "deployed" not in table:
        return pd.Series(False, index=table.index)
    return (table["verdict"] == Verdict.ROBUST.value) & (table["deployed"] == WORDS[True])


def is_witnessed_only(table: pd.DataFrame) -> pd.Series:
    """Rows that are unknown although Marabou found no counterexample."""
    return (table["verdict"] == Verdict.UNKNOWN.value) & (table["reason"] == WITNESSED_ONLY)


def _count(table: pd.DataFrame, rows: pd.Series) -> pd.Series:
    """How many of the rows are marked, by epsilon."""
    return rows.groupby(table["epsilon"]).sum()


def check_radii(verification: pd.DataFrame, radii: pd.DataFrame) -> None:
    """Holds a `verification_table` against the `radius_table` of the same model.

    Raises:
        ContradictionError: a ball is proved in one and broken in the other.
    """
    found = verification.merge(radii[["sample_index", "proved", "falsified"]], on="sample_index")
    proved = found["verdict"] == Verdict.ROBUST.value
    broken = found["verdict"] == Verdict.FALSIFIED.value
    wrong = found[
        (proved & (found["falsified"] <= found["epsilon"]))
        | (broken & (found["proved"] >= found["epsilon"]))
    ]
    if len(wrong):
        row = wrong.iloc[0]
        raise ContradictionError(
            f"sample {row['sample_index']}: {row['verdict']} at epsilon {row['epsilon']:g}, yet "
            f"its critical radius lies in [{row['proved']:g}, {row['falsified']:g}]: this is a "
            "defect of certiflow; please report it with the run's artifacts"
        )


def decided_by_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Points that each stage decided, robust or falsified: radii by `stage verdict`.

    What Marabou alone found robust is `marabou witnessed`, which decides nothing.
    """
    words = table["verdict"].mask(is_witnessed_only(table), "witnessed")
    shown = words.isin([Verdict.ROBUST.value, Verdict.FALSIFIED.value, "witnessed"])
    decided = table[shown]
    what = decided["decided_by"] + " " + words[shown]
    counts = pd.crosstab(decided["epsilon"], what)
    return counts.reindex(sorted(table["epsilon"].unique()), fill_value=0)
