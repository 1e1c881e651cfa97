"""Small networks with curved units that tests share."""

from __future__ import annotations

import numpy as np

from tasks.core.networks.curves import CURVES, Kind
from tasks.core.networks.network import ReluNetwork
from tasks.core.tensors import composed
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor

# Of a layer of its own, with values for which it is defined.
SAFE = [kind for kind in CURVES if kind not in {Kind.LOG, Kind.SQRT, Kind.RECIPROCAL, Kind.EXP}]


def curved_network(generator: np.random.Generator, inputs: int) -> ReluNetwork:
    """One to three layers of ReLUs, curves, a softmax or products, then an affine one."""
    lowering = Lowering((1, inputs))
    tensor = lowering.input
    for _ in range(int(generator.integers(1, 4))):
        width = int(generator.integers(2, 6))
        tensor = _affine(generator, lowering, tensor, width)
        choice = int(generator.integers(0, 6))
        if choice == 0:
            tensor = composed.softmax(lowering, tensor, 1)
        elif choice == 1:
            other = lowering.relu(_affine(generator, lowering, tensor, width))
            tensor = composed.product(lowering, tensor, other)
        elif choice == 2:
            positive = lowering.curved(Kind.EXP, lowering.clipped(tensor, -2.0, 1.0))
            divisor = lowering.add(positive, lowering.constant(0.5))
            tensor = composed.quotient(lowering, tensor, divisor)
        else:
            kind = SAFE[int(generator.integers(len(SAFE)))]
            bent = lowering.curved(kind, tensor)
            tensor = lowering.add(bent, tensor.scaled(0.3)) if choice == 3 else bent
    return lowering.network(_affine(generator, lowering, tensor, int(generator.integers(1, 4))))


def _affine(
    generator: np.random.Generator, lowering: Lowering, tensor: Tensor, width: int
) -> Tensor:
    before = tensor.shape[1]
    weight = generator.normal(size=(before, width)) * 1.5 / np.sqrt(before)
    bias = lowering.constant(generator.normal(size=(1, width)) * 0.4)
    return lowering.add(tensor.times(weight), bias)
