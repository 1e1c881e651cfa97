"""What training data look like in a few numbers, and how far two data sets' numbers lie apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.core.arrays import IntArray
from tasks.core.properties.domain import Domain

BINS = 10
MODERATE, MAJOR = 0.1, 0.25  # the usual thresholds of the index (Siddiqi 2006)
LEAST_SHARE = 1e-4  # an empty bin would make the index infinite


class Histogram(BaseModel):
    """How many values lie up to each of ascending `edges`, and beyond the last one."""

    model_config = ConfigDict(frozen=True)

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class DataProfile(BaseModel):
    """Training data in a few numbers.

    Attributes:
        shape: of one input.
        labels: inputs of each class, from class 0.
        brightness, contrast: images by the mean and the standard deviation of their pixels, in
            equal bins of [0, 1] and of [0, 0.5], which hold every image with pixels in [0, 1].
        features: a table's columns by name, in bins that hold a tenth of the data each.
        completions: what stood for a table's empty cells, as in `Dataset`.
    """

    model_config = ConfigDict(frozen=True)

    shape: tuple[int, ...]
    labels: tuple[int, ...]
    brightness: tuple[int, ...] = ()
    contrast: tuple[int, ...] = ()
    features: dict[str, Histogram] = {}
    completions: dict[str, str] = {}


class Drift(BaseModel):
    """Population stability index of each part of the profile: 0 when nothing moved.

    Of a table's features the one that moved most, `feature`, stands for all.
    """

    model_config = ConfigDict(frozen=True)

    labels: float
    brightness: float | None = None
    contrast: float | None = None
    feature: str = ""
    features: float | None = None

    def parts(self) -> dict[str, float]:
        """The index by part."""
        known = {
            "labels": self.labels,
            "brightness": self.brightness,
            "contrast": self.contrast,
            "features": self.features,
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def word(self) -> str:
        """`none`, `moderate` or `major`, by the part that moved most."""
        largest = max(self.parts().values())
        return "major" if largest > MAJOR else "moderate" if largest > MODERATE else "none"


def profile(
    inputs: NDArray[np.float32], labels: IntArray, domain: Domain, like: DataProfile | None = None
) -> DataProfile:
    """The profile of inputs, shape (n, ...), of the domain, and labels, shape (n,).

    Features are told in the bins of `like`, with which it is to be compared.
    """
    shape, counts = inputs.shape[1:], tuple(np.bincount(labels).tolist())
    flat = inputs.reshape(len(inputs), -1)
    if domain.is_table:
        names = [column for feature in domain.features for column in feature.columns]
        known = {} if like is None else like.features
        columns = zip(names, flat.T.astype(np.float64), strict=True)
        features = {name: _binned(values, known.get(name)) for name, values in columns}
        return DataProfile(shape=shape, labels=counts, features=features)
    return DataProfile(
        shape=shape,
        labels=counts,
        brightness=_histogram(flat.mean(axis=1, dtype=np.float64), 1.0),
        contrast=_histogram(flat.std(axis=1, dtype=np.float64), 0.5),
    )


def drift(new: DataProfile, old: DataProfile) -> Drift:
    """How far `new` has moved from `old`, which must have as many classes, and its bins."""
    labels = stability_index(new.labels, old.labels)
    if old.features:
        moved = {
            name: stability_index(new.features[name].counts, histogram.counts)
            for name, histogram in old.features.items()
        }
        most = max(moved, key=lambda name: moved[name])
        return Drift(labels=labels, feature=most, features=moved[most])
    return Drift(
        labels=labels,
        brightness=stability_index(new.brightness, old.brightness),
        contrast=stability_index(new.contrast, old.contrast),
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


def _binned(values: NDArray[np.float64], like: Histogram | None) -> Histogram:
    """By the deciles, each once, unless bins are given."""
    shares = np.arange(1, BINS) / BINS
    edges = np.unique(np.quantile(values, shares)) if like is None else np.array(like.edges)
    places = np.searchsorted(edges, values)  # a value that is an edge lies below it
    counts = np.bincount(places, minlength=len(edges) + 1)
    return Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))
