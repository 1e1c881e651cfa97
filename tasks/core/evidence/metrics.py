"""The numbers that versions are compared by, each defined once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray, IntArray, Mask
from tasks.core.errors import ContradictionError
from tasks.core.evidence.sampling import share_interval
from tasks.core.verdict_columns import COLUMNS, DEPLOYED_WORDS, WITNESS_WORDS
from tasks.core.verdicts import VERDICT_COLUMNS, WITNESSED_ONLY, Verdict, VerificationResult

FIRST = 1000  # the reference experiment attacked the first 1,000 test images


def epsilon_grid(
    epsilons: Sequence[float],
    labels: IntArray,
    clean_predictions: IntArray,
    fgsm_predictions: IntArray,
    pgd_broken: Mask,
    certified: Mask,
    positive: int | None = None,
) -> pd.DataFrame:
    """One row per radius, over the whole test set; accuracies count clean mistakes as broken.

    Args:
        fgsm_predictions, pgd_broken, certified: shape (epsilons, n). `pgd_broken` includes what
            FGSM breaks.
        positive: a class; recalls are the same shares of its points alone.

    Raises:
        ContradictionError: unless certified <= PGD <= FGSM <= clean accuracy holds point by point.
    """
    right = clean_predictions == labels
    fgsm_right = right & (fgsm_predictions == labels)
    pgd_right = fgsm_right & ~pgd_broken
    if (certified & ~pgd_right).any():
        index, point = np.argwhere(certified & ~pgd_right)[0]
        raise ContradictionError(
            f"test point {point}: certified at epsilon {epsilons[index]:g}, yet an attack breaks "
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
            **_recalls(labels == positive, right, fgsm_right, pgd_right, certified),
        }
    )


def _recalls(
    positive: Mask, right: Mask, fgsm_right: Mask, pgd_right: Mask, certified: Mask
) -> dict[str, FloatArray]:
    """Of the points of one class, if there are any."""
    if not positive.any():
        return {}
    return {
        "clean_recall": np.full(len(certified), right[positive].mean()),
        "fgsm_recall": fgsm_right[:, positive].mean(axis=1),
        "pgd_recall": pgd_right[:, positive].mean(axis=1),
        "certified_recall": certified[:, positive].mean(axis=1),
    }


def success_rate(right: Mask, right_under_attack: Mask) -> FloatArray:
    """Share of the correctly classified points, shape (n,), that an attack breaks, per epsilon."""
    broken = (right & ~right_under_attack).sum(axis=1)
    rate: FloatArray = broken / max(int(right.sum()), 1)
    return rate


def verification_table(results: Sequence[VerificationResult]) -> pd.DataFrame:
    """One row per point and radius; what `tables/verification.csv` holds.

    `deployed` says of what is robust whether the proof holds for the float32 model as well.
    """
    rows = [{column.name: column.of(result) for column in COLUMNS} for result in results]
    dtypes = {column.name: column.dtype for column in COLUMNS}
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def is_deployed(table: pd.DataFrame) -> pd.Series:
    """Rows of a `verification_table` that are proved of the deployed float32 model."""
    return _is(table, "verdict", Verdict.ROBUST.value) & _is(
        table, "deployed", DEPLOYED_WORDS[True]
    )


def is_witnessed_only(table: pd.DataFrame) -> pd.Series:
    """Rows that are unknown although Marabou found no counterexample."""
    return _is(table, "verdict", Verdict.UNKNOWN.value) & _is(table, "reason", WITNESSED_ONLY)


def _is(table: pd.DataFrame, column: str, word: str) -> pd.Series:
    """Rows with the word; none in the tables of versions that had no such column."""
    return table[column] == word if column in table else pd.Series(False, index=table.index)


# Points of each radius that are counted, by the name of the count in summaries and in MLflow.
COUNTS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    **{verdict.value: partial(_is, column="verdict", word=verdict.value) for verdict in Verdict},
    "witnessed_only": is_witnessed_only,
}
# Proofs that Marabou was asked about.
WITNESSES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    f"witness_{word}": partial(_is, column="witness", word=word) for word in WITNESS_WORDS
}
# Shares of all points, with the count that each is made of.
SHARES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "certified_accuracy": COUNTS[Verdict.ROBUST.value],
    "certified_deployed_accuracy": is_deployed,
    "unbroken_accuracy": lambda table: ~COUNTS[Verdict.FALSIFIED.value](table),
}
# The same shares where all test points were verified: between them lies the exact robust accuracy.
EXACT = {
    "exact_accuracy": SHARES["certified_accuracy"],
    "exact_accuracy_high": SHARES["unbroken_accuracy"],
}
SECONDS = ("seconds", "witness_seconds")


def verification_summary(
    table: pd.DataFrame, positive: int | None = None, test_size: int | None = None
) -> pd.DataFrame:
    """One row per radius of a `verification_table`: points per verdict, and what they prove.

    `certified_accuracy` is the share proved (a lower estimate of the robust accuracy),
    `certified_deployed_accuracy` the share proved of the float32 model as it is served,
    `unbroken_accuracy` the share not falsified (an upper one); over all `points` of the sample. The
    first two have their `share_interval` beside them, as `…_low` and `…_high`. `witnessed_only`
    counts those of the unknown points that Marabou alone found robust, `witness_confirmed` and
    `witness_undecided` the proofs that it was asked about. `certified_recall` is the share proved
    of the points of class `positive`. Where all of `test_size` points were verified, the exact
    robust accuracy of the test set lies between `exact_accuracy` and `exact_accuracy_high`, which
    are one number at a radius where every point is decided.
    """
    epsilon = table["epsilon"]
    named = SHARES | (EXACT if table["sample_index"].nunique() == test_size else {})
    counted = COUNTS | WITNESSES
    counts = {name: marked(table).groupby(epsilon).sum() for name, marked in counted.items()}
    shares = {name: marked(table).groupby(epsilon).mean() for name, marked in named.items()}
    seconds = {name: table.groupby("epsilon")[name].sum() for name in SECONDS if name in table}
    if positive is not None:
        of_class = table[table["label"] == positive]
        proved = SHARES["certified_accuracy"](of_class).groupby(of_class["epsilon"]).mean()
        shares["certified_recall"] = proved
    return with_intervals(pd.DataFrame(counts | shares | seconds).reset_index())


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


def with_exact(grid: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """An `epsilon_grid` with the exact accuracies of a `verification_summary`, if it has any.

    They are NaN at radii that were not verified.
    """
    names = [name for name in EXACT if name in summary]
    return grid.merge(summary[["epsilon", *names]], on="epsilon", how="left") if names else grid


def broken_at(points: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The least radius at which PGD breaks each test point, infinite where none does: (n,)."""
    never = np.ones(points["pgd"].shape[1], dtype=bool)
    first = np.vstack([~points["pgd"], never]).argmax(axis=0)
    return np.append(points["epsilons"], np.inf)[first]


def check_points(verification: pd.DataFrame, points: Mapping[str, NDArray[Any]]) -> None:
    """Holds a `verification_table` against what attacks and bounds say of each test point.

    A proof that is not `deployed` speaks of the reals: an attack on the float32 model may differ.

    Args:
        points: `epsilons` (k,), ascending, and `pgd`, `certified` (k, n): see
            `tasks.attack.test_points`.

    Raises:
        ContradictionError: a point is proved by one and broken, there or nearer, by the other.
    """
    certified = np.where(points["certified"], points["epsilons"][:, None], -1).max(axis=0)
    places = verification["sample_index"].to_numpy()
    proved = _is(verification, "verdict", Verdict.ROBUST.value)
    proved &= ~_is(verification, "deployed", DEPLOYED_WORDS[False])
    broken = _is(verification, "verdict", Verdict.FALSIFIED.value)
    radii = verification["epsilon"].to_numpy()
    wrong = (proved & (broken_at(points)[places] <= radii)) | (
        broken & (certified[places] >= radii)
    )
    if wrong.any():
        row = verification[wrong].iloc[0]
        raise ContradictionError(
            f"sample {row['sample_index']}: {row['verdict']} at epsilon {row['epsilon']:g} by "
            f"{row['decided_by']}, yet attacks and bounds on the whole test set say otherwise: "
            "this is a defect of certiflow; please report it with the run's artifacts"
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
