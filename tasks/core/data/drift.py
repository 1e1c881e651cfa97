"""What training data look like in a few numbers, and how far two data sets' numbers lie apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.core.arrays import IntArray

BINS = 10
MODERATE, MAJOR = 0.1, 0.25  # the usual thresholds of the index (Siddiqi 2006)
LEAST_SHARE = 1e-4  # an empty bin would make the index infinite


class DataProfile(BaseModel):
    """Training data in a few numbers.

    Attributes:
        shape: of one image.
        labels: images of each class, from class 0.
        brightness, contrast: images by the mean and the standard deviation of their pixels, in
            equal bins of [0, 1] and of [0, 0.5], which hold every image with pixels in [0, 1].
    """

    model_config = ConfigDict(frozen=True)

    shape: tuple[int, ...]
    labels: tuple[int, ...]
    brightness: tuple[int, ...]
    contrast: tuple[int, ...]


@dataclass(frozen=True)
class Drift:
    """Population stability index of each part of the profile: 0 when nothing moved."""

    labels: float
    brightness: float
    contrast: float

    def parts(self) -> dict[str, float]:
        """The index by part."""
        return asdict(self)

    @property
    def word(self) -> str:
        """`none`, `moderate` or `major`, by the part that moved most."""
        largest = max(self.parts().values())
        return "major" if largest > MAJOR else "moderate" if largest > MODERATE else "none"


def profile(images: NDArray[np.float32], labels: IntArray) -> DataProfile:
    """The profile of images, shape (n, ...) with pixels in [0, 1], and labels, shape (n,)."""
    flat = images.reshape(len(images), -1)
    return DataProfile(
        shape=images.shape[1:],
        labels=tuple(np.bincount(labels).tolist()),
        brightness=_histogram(flat.mean(axis=1, dtype=np.float64), 1.0),
        contrast=_histogram(flat.std(axis=1, dtype=np.float64), 0.5),
    )


def drift(new: DataProfile, old: DataProfile) -> Drift:
    """How far `new` has moved from `old`, which must have as many classes."""
    return Drift(
        stability_index(new.labels, old.labels),
        stability_index(new.brightness, old.brightness),
        stability_index(new.contrast, old.contrast),
    )


def stability_index(new: tuple[int, ...], old: tuple[int, ...]) -> float:
    """The population stability index of two histograms: the symmetric Kullback-Leibler divergence.

    sum (p - q) ln(p / q) over the bins' shares (Siddiqi 2006, Credit Risk Scorecards).
    """
    p, q = (np.maximum(np.array(counts) / sum(counts), LEAST_SHARE) for counts in (new, old))
    return float(((p - q) * np.log(p / q)).sum())


def _histogram(values: NDArray[np.float64], top: float) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(values, 0, top), bins=BINS, range=(0, top))
    return tuple(counts.tolist())
