"""Several models side by side as one: networks for proofs, and each runtime on its own inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.side_by_side import side_by_side


@dataclass(frozen=True, eq=False)
class JoinedRuntime:
    """Models as they are deployed, each fed its own of the inputs that they have together.

    Attributes:
        columns: of each model, the places of its inputs, all of which together are every place.
    """

    runtimes: tuple[Runtime, ...]
    columns: tuple[IntArray, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The inputs are flat."""
        return (1 + max(int(places.max()) for places in self.columns),)

    def logits(self, points: Float32Array) -> Float32Array:
        """The outputs of all models, one after the other: (n, inputs) to (n, outputs)."""
        flat = np.asarray(points, dtype=np.float32).reshape(len(points), -1)
        found = [
            runtime.logits(flat[:, places].reshape(len(flat), *runtime.input_shape))
            for runtime, places in zip(self.runtimes, self.columns, strict=True)
        ]
        return np.concatenate(found, axis=1)


def joined(models: Sequence[LoadedModel], columns: Sequence[IntArray]) -> LoadedModel:
    """One model of several, whose outputs are their logits; `columns` as `JoinedRuntime` has it."""
    network = side_by_side([model.network for model in models], columns)
    return LoadedModel(network, JoinedRuntime(tuple(m.runtime for m in models), tuple(columns)))
