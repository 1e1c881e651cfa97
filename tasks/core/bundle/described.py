"""What the bundle says of the data, which it does not hold: enough to judge its counterexamples."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.core.data.datasets import Dataset
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation


class DataDescription(BaseModel):
    """A dataset, the points of it that were verified, and what an attacker may do to an input.

    Attributes:
        source: what `data.dataset` said: a name, or a file.
        sha256: `Dataset.sha256`.
        sample: ascending places in the test set of the points that were verified.
        positive: the class whose recall counts, if any.
        tolerance: of a model that predicts a number, else None.
        scales, down, up, most_changes, unit: of `Perturbation`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    sha256: str
    licence: str
    citation: str
    notes: tuple[str, ...]
    train: int
    test: int
    sample: tuple[int, ...]
    class_names: tuple[str, ...]
    positive: int | None
    tolerance: float | None
    shape: tuple[int, ...]
    features: tuple[Feature, ...]
    relations: tuple[str, ...]
    scales: tuple[float, ...]
    down: tuple[float, ...]
    up: tuple[float, ...]
    most_changes: int
    unit: str

    @classmethod
    def of(cls, data: Dataset, source: str, sample: tuple[int, ...]) -> DataDescription:
        """Of a dataset, and the points of its test set that were verified."""
        moves, domain = data.perturbation, data.domain
        return cls(
            name=data.name,
            source=source,
            sha256=data.sha256,
            licence=data.card.licence,
            citation=data.card.citation,
            notes=data.card.notes,
            train=len(data.train_labels),
            test=len(data.test_labels),
            sample=sample,
            class_names=data.class_names,
            positive=data.positive,
            tolerance=data.tolerance,
            shape=domain.shape,
            features=domain.features,
            relations=tuple(relation.text for relation in domain.relations),
            scales=tuple(moves.scales.tolist()),
            down=tuple(moves.down.tolist()),
            up=tuple(moves.up.tolist()),
            most_changes=moves.most_changes,
            unit=moves.unit,
        )

    @property
    def perturbation(self) -> Perturbation:
        """What an attacker may do; raises `CertiflowError` on a relation that cannot be read."""
        domain = Domain(self.shape)
        if self.features:
            domain = Domain.of_table(self.features, self.relations)
        return Perturbation(
            domain,
            np.array(self.scales),
            np.array(self.down),
            np.array(self.up),
            self.most_changes,
            self.unit,
        )

    @property
    def norm(self) -> str:
        """How distances are measured."""
        return "Linf, each feature in its own scale" if self.features else "Linf"
