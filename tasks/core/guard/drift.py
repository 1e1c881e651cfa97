"""Whether inputs and labels in service are still like the test set's.

Window after window the population stability index (PSI) compares shares in bins: of images
brightness, contrast and the means of four quarters, of tables each column, and of the labels. Above
0.25 is commonly called a shift. Of equal distributions it is about (bins - 1) (1 / window + 1 /
reference), here 0.014 with a standard deviation of 0.006, so that a false alarm would be one of 37
standard deviations; a shift is seen at the end of the first window that has it throughout.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.core.arrays import FloatArray, Inputs, IntArray
from tasks.core.properties.domain import Domain

WINDOW = 1000  # inputs
AT_A_TIME = 50
BINS = 10
SHIFT = 0.25  # of PSI
LABELS = "labels"


class Profile(BaseModel):
    """What clean inputs are like: the bins of each summary between `edges`, and their shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    edges: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    labels: tuple[float, ...]

    @classmethod
    def of(cls, domain: Domain, inputs: Inputs, labels: IntArray, num_classes: int) -> Profile:
        """Of the test set, with the labels that are served."""
        names, values = summaries(domain, inputs)
        quantiles = np.linspace(0, 1, BINS + 1)[1:-1]
        edges = [np.unique(np.quantile(column, quantiles)) for column in values.T]
        counts = [_counts(column, each) for column, each in zip(values.T, edges, strict=True)]
        return cls(
            names=names,
            edges=tuple(tuple(each.tolist()) for each in edges),
            shares=tuple(tuple(_shares(each).tolist()) for each in counts),
            labels=tuple(_shares(np.bincount(labels, minlength=num_classes)).tolist()),
        )


def summaries(domain: Domain, inputs: Inputs) -> tuple[tuple[str, ...], FloatArray]:
    """Names, and numbers (n, names)."""
    if domain.is_table:
        names = tuple(name for feature in domain.features for name in feature.columns)
        return names, inputs.reshape(len(inputs), -1).astype(np.float64)
    images = inputs.astype(np.float64)
    rows, columns = images.shape[1] // 2, images.shape[2] // 2
    quarters = {
        "upper left": images[:, :rows, :columns],
        "upper right": images[:, :rows, columns:],
        "lower left": images[:, rows:, :columns],
        "lower right": images[:, rows:, columns:],
    }
    axes = tuple(range(1, images.ndim))
    found = {"brightness": images.mean(axis=axes), "contrast": images.std(axis=axes)}
    found |= {name: part.mean(axis=axes) for name, part in quarters.items()}
    return tuple(found), np.stack(list(found.values()), axis=1)


def stability_index(shares: FloatArray, reference: FloatArray) -> float:
    """Sum of (p - q) log(p / q) over the bins, none of them empty."""
    return float(((shares - reference) * np.log(shares / reference)).sum())


class Drift:
    """Counts what is served, and compares each window with a profile."""

    def __init__(self, profile: Profile, domain: Domain) -> None:
        self._profile, self._domain = profile, domain
        self._edges = [np.array(each) for each in profile.edges]
        self.indices: dict[str, float] = {}  # of the last whole window
        self._shifted: set[str] = set()
        self._waiting: list[tuple[Inputs, IntArray]] = []
        self._begin()

    def observe(self, inputs: Inputs, labels: IntArray) -> list[str]:
        """What has shifted in a window that ended, and had not in the one before.

        Inputs are looked at many at a time: one by one that would take as long as an answer.
        """
        self._waiting.append((inputs, labels))
        if sum(len(each) for _, each in self._waiting) < AT_A_TIME:
            return []
        inputs, labels = (np.concatenate(each) for each in zip(*self._waiting, strict=True))
        self._waiting.clear()
        found: list[str] = []
        start = 0
        while start < len(inputs):
            end = start + WINDOW - self._seen
            self._count(inputs[start:end], labels[start:end])
            start = min(end, len(inputs))
            if self._seen == WINDOW:
                found += self._compared()
                self._begin()
        return found

    def _begin(self) -> None:
        self._seen = 0
        self._counts = [np.zeros(len(each) + 1) for each in self._edges]
        self._labels = np.zeros(len(self._profile.labels))

    def _count(self, inputs: Inputs, labels: IntArray) -> None:
        _, values = summaries(self._domain, inputs)
        for place, (column, edges) in enumerate(zip(values.T, self._edges, strict=True)):
            self._counts[place] += _counts(column, edges)
        self._labels += np.bincount(labels, minlength=len(self._labels))
        self._seen += len(inputs)

    def _compared(self) -> list[str]:
        profile = self._profile
        counted = [*self._counts, self._labels]
        references = [*profile.shares, profile.labels]
        self.indices = {
            name: stability_index(_shares(counts), np.array(reference))
            for name, counts, reference in zip(
                [*profile.names, LABELS], counted, references, strict=True
            )
        }
        shifted = {name for name, index in self.indices.items() if index > SHIFT}
        new, self._shifted = sorted(shifted - self._shifted), shifted
        return new


def _counts(values: FloatArray, edges: FloatArray) -> FloatArray:
    places = np.searchsorted(edges, values, side="right")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.float64)


def _shares(counts: FloatArray | IntArray) -> FloatArray:
    """Half an input more in each bin, so that none is empty."""
    shares: FloatArray = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return shares
