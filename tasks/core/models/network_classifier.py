"""Any model that can be verified as one that can be attacked: gradients from its float64 network.

Keras models have gradients of their own (`runtimes.Classifier`); ONNX and `.nnet` files come
without. The float64 network is the same function, so its gradients serve; the last word on what
they lead to has the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray, Inputs, IntArray
from tasks.core.models.runtimes import Runtime
from tasks.core.networks.network import ReluNetwork


@dataclass(frozen=True, eq=False)
class NetworkClassifier:
    """See `runtimes.Attackable`: labels are the runtime's, gradients the network's."""

    runtime: Runtime
    network: ReluNetwork
    batch_size: int = 1000

    def batched(self, batch_size: int) -> NetworkClassifier:
        """The same in other batches."""
        return replace(self, batch_size=batch_size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.runtime.input_shape

    def logits(self, inputs: Inputs) -> Float32Array:
        """Logits of the deployed model, shape (n, classes)."""
        return self.runtime.logits(inputs.reshape(len(inputs), *self.input_shape))

    def predictions(self, inputs: Inputs) -> IntArray:
        """The label with the greatest logit, shape (n,)."""
        return np.asarray(self.logits(inputs).argmax(axis=1))

    def batches(self, count: int) -> list[slice]:
        """Slices of at most `batch_size` that cover `count` rows."""
        return [slice(start, start + self.batch_size) for start in range(0, count, self.batch_size)]

    def loss_gradient(self, inputs: Inputs, labels: IntArray) -> Inputs:
        """Gradient of the cross-entropy by the inputs, of the inputs' shape."""
        preactivations = self.network.preactivations(inputs)
        logits = preactivations[-1] - preactivations[-1].max(axis=1, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        shares[np.arange(len(labels)), labels] -= 1
        gradient = self.network.gradient(preactivations, shares)
        return gradient.reshape(inputs.shape).astype(np.float32)

    def margin_descent(
        self,
        points: Inputs,
        labels: IntArray,
        lower: Inputs,
        upper: Inputs,
        step: Inputs,
        num_steps: int,
    ) -> Inputs:
        """One PGD run on the least margin; see `runtimes.Attackable`."""
        best, least = points, np.full(len(points), np.inf)
        for number in range(num_steps + 1):
            margin, gradient = self._least_margin(points, labels)
            better = margin < least
            shape = (-1, *[1] * (points.ndim - 1))
            best = np.where(better.reshape(shape), points, best)
            least = np.minimum(margin, least)
            if number < num_steps:
                moved = points - step * np.sign(gradient).reshape(points.shape)
                points = np.clip(moved, lower, upper).astype(np.float32)
        return best

    def _least_margin(self, points: Inputs, labels: IntArray) -> tuple[FloatArray, FloatArray]:
        """Of each point, and its gradient by the flat inputs."""
        preactivations = self.network.preactivations(points)
        logits, rows = preactivations[-1].copy(), np.arange(len(points))
        true = logits[rows, labels].copy()
        logits[rows, labels] = -np.inf
        others = logits.argmax(axis=1)
        direction = np.zeros_like(logits)
        direction[rows, labels] = 1
        direction[rows, others] -= 1
        return true - logits[rows, others], self.network.gradient(preactivations, direction)
