"""What a lowering makes of tensors, with the error that the model's float32 may have."""

from __future__ import annotations

import numpy as np

from tasks.core.tensors.lowering import Lowering


def test_what_only_cancels_out_is_not_the_zero_of_a_relu() -> None:
    """max(x, x / 3 - x / 3) is no ReLU in float32, where the second may be a little above 0."""
    lowering = Lowering((1, 4))
    third = lowering.input.scaled(1 / 3)
    nothing = lowering.add(third, third.scaled(-1.0))
    assert not nothing.matrix.toarray().any()
    plain = lowering.maximum(lowering.input, lowering.constant(0.0))
    careful = lowering.maximum(lowering.input, nothing)
    points = np.linspace(-1, 1, 20).reshape(5, 4)
    for tensor in (plain, careful):
        np.testing.assert_allclose(lowering.network(tensor)(points), np.maximum(points, 0))
    assert (plain.absolute.sum(), careful.absolute.sum()) == (4, 8)
