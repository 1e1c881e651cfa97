"""Where a model and a dataset meet: the model as it answers what the dataset asks.

A classifier is asked for the label. Of a model with one output, a number, it is asked whether that
lies within a tolerance of the row's last input, the reference: the target that was observed, or the
model's own answer to the row undisturbed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Float32Array
from tasks.core.data.datasets import Dataset
from tasks.core.models.agreement import check_agreement
from tasks.core.models.inspection import Ends, check_fit
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.tolerance import in_float32, scale_of, within
from tasks.core.tensors.endings import LEAST

ROWS = 16  # of the test set, at which what is deployed is held against what is proved


@dataclass(frozen=True, eq=False)
class ToleranceRuntime:
    """A deployed model whose number is compared in float32; see `networks.tolerance.within`."""

    model: Runtime
    tolerance: np.float32

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The model's inputs, flat, and the reference."""
        return (int(np.prod(self.model.input_shape)) + 1,)

    def excess(self, points: Float32Array) -> Float32Array:
        """By how much the model's number exceeds the reference, shape (n,)."""
        rows = np.asarray(points, dtype=np.float32).reshape(len(points), -1)
        inputs = rows[:, :-1].reshape(len(rows), *self.model.input_shape)
        return self.model.logits(inputs)[:, 0] - rows[:, -1]

    def logits(self, points: Float32Array) -> Float32Array:
        """Of within, too high, too low: shape (n, 3); exactly the tolerance is not within it."""
        excess = self.excess(points)
        beyond = np.stack([excess, -excess], axis=1) - self.tolerance
        beyond *= np.float32(scale_of(self.tolerance))
        # equal logits would go to the first; what is no number stays one and wins
        decided = np.where(beyond < 0, beyond, np.maximum(beyond, LEAST))
        return np.concatenate([np.zeros((len(decided), 1), np.float32), decided], axis=1)


def answering(model: LoadedModel, data: Dataset) -> LoadedModel:
    """The model as it decides between the dataset's classes, on the dataset's inputs.

    Raises:
        CertiflowError: its inputs or outputs are not as many as the dataset's; its number is
            compared otherwise than it was read, which would be a defect.
    """
    ends = Ends(model.network.num_inputs, model.network.num_outputs)
    check_fit(ends, data.name, data.extent)
    if data.tolerance is None:
        return model
    runtime = ToleranceRuntime(model.runtime, in_float32(data.tolerance))
    network = within(model.network, data.tolerance)
    rows = data.test_inputs[:ROWS].astype(np.float64)
    check_agreement(network, runtime, rows)
    return LoadedModel(network, runtime)
