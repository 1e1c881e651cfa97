"""Measures that do not hide a rare class, as accuracy does where classes are of unequal size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray, IntArray, Mask


def recalls(labels: IntArray, right: Mask, num_classes: int) -> FloatArray:
    """By class the share of its points that are right, (classes,); NaN for a class without any."""
    points = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[right], minlength=num_classes)
    with np.errstate(invalid="ignore"):
        return np.asarray(hits / points)


def balanced_accuracy(labels: IntArray, right: Mask, num_classes: int) -> float:
    """The mean of the classes' recalls (Brodersen et al. 2010)."""
    return float(np.nanmean(recalls(labels, right, num_classes)))


def measures(labels: IntArray, logits: Float32Array, positive: int | None) -> dict[str, float]:
    """`balanced_accuracy`, and of the class that counts, if any, `recall` and `auc`."""
    right = logits.argmax(axis=1) == labels
    found = {"balanced_accuracy": balanced_accuracy(labels, right, logits.shape[1])}
    if positive is None:
        return found
    found["recall"] = float(recalls(labels, right, logits.shape[1])[positive])
    curve = area_under_curve(labels, logits, positive)
    return found if curve is None else found | {"auc": curve}


def area_under_curve(labels: IntArray, logits: Float32Array, positive: int) -> float | None:
    """Of the receiver operating characteristic of one class against the others.

    By the class's logit above the greatest other one; None where all labels are on one side.
    """
    from sklearn.metrics import roc_auc_score

    is_positive = labels == positive
    if is_positive.all() or not is_positive.any():
        return None
    others = np.delete(logits, positive, axis=1).max(axis=1)
    return float(roc_auc_score(is_positive, logits[:, positive] - others))


def never_predicted(predictions: IntArray, num_classes: int) -> list[int]:
    """The classes that no point was given, ascending."""
    return np.flatnonzero(np.bincount(predictions, minlength=num_classes) == 0).tolist()


def warning_of_never_predicted(missed: Sequence[str]) -> str:
    """What there is to say of the classes of these names."""
    return (
        f"the model never predicts class {', '.join(missed)} on the test set: its accuracy is "
        "that of the other classes; try training.class_weights: balanced, or train longer"
    )
