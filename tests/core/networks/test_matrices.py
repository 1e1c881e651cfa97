"""Blocks are the same matrix as the dense one, in every operation that a layer has."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import sparse

from tasks.core.bounds.rounding import gamma
from tasks.core.dual.input_planes import Spans
from tasks.core.errors import CertiflowError
from tasks.core.networks import blocks, matrices
from tasks.core.networks.block_matrix import BlockMatrix, stored
from tasks.core.networks.matrices import DenseMatrix, Matrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.tensors.convolutions import average_pooled, convolved
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Window
from tests.networks import convolutional, random_network

Layer = Callable[[np.random.Generator, Lowering], Tensor]
SIZES = (7, 8)


def convolution(
    *, channels: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1, same: bool = True
) -> Layer:
    """Of 6 filters of 3x2; the padding is that of Keras's `same`, or none."""

    def layer(generator: np.random.Generator, lowering: Lowering) -> Tensor:
        extents, strides, dilations = (3, 2), (stride, stride), (dilation, dilation)
        window = Window.same(SIZES, extents, strides, dilations)
        if not same:
            window = replace(window, before=(0, 0), after=(0, 0))
        kernel = generator.normal(size=(6, channels // groups, 3, 2))
        return convolved(lowering.input, kernel, window, groups)

    return layer


def normalised(generator: np.random.Generator, lowering: Lowering) -> Tensor:
    """A batch normalisation behind a convolution."""
    return lowering.batch_normalised(
        convolution()(generator, lowering),
        1,
        mean=generator.normal(size=6),
        variance=generator.random(6),
        epsilon=1e-3,
        scale=generator.normal(size=6),
        shift=generator.normal(size=6),
    )


def pooled(generator: np.random.Generator, lowering: Lowering) -> Tensor:
    window = Window.same(SIZES, (3, 3), (2, 2), (1, 1))
    return average_pooled(lowering.input, window, count_padding=False)


def mixed(generator: np.random.Generator, lowering: Lowering) -> Tensor:
    """Blocks of many shapes, rows of zeros, a weight of zero, an input that nobody reads."""
    one = convolution()(generator, lowering)
    scale = np.ones(one.shape)
    scale[0, 2], scale[0, 0, 0, 0] = 0, 0
    unread = lowering.input.scaled(np.arange(7)[:, None] > 0)
    every = unread.taken(unread.positions.reshape(1, -1)).times(generator.normal(size=(168, 4)))
    return lowering.stacked([one.scaled(scale), unread, every])


LAYERS: dict[str, Layer] = {
    "same": convolution(),
    "valid": convolution(same=False),
    "one channel": convolution(channels=1),
    "stride": convolution(stride=2),
    "dilation": convolution(dilation=2, same=False),
    "groups": convolution(groups=3),
    "depthwise": convolution(groups=3, stride=3),
    "batch normalisation": normalised,
    "average pooling": pooled,
    "mixed": mixed,
}


def both(name: str, seed: int = 0) -> tuple[BlockMatrix, DenseMatrix]:
    """The layer's matrix in blocks, whether that pays or not, and dense."""
    generator = np.random.default_rng(seed)
    lowering = Lowering((1, 1 if name == "one channel" else 3, *SIZES))
    (layer,) = lowering.network(LAYERS[name](generator, lowering)).layers
    assert isinstance(layer.matrix, BlockMatrix)
    return layer.matrix, DenseMatrix(layer.weight)


def check_same(matrix: Matrix, dense: Matrix, tolerance: float) -> None:
    """All that `Matrix` promises, but for sums' own rounding."""
    generator = np.random.default_rng(1)
    weight = dense.dense()
    assert matrix.shape == dense.shape == weight.shape
    np.testing.assert_array_equal(matrix.dense(), weight)
    np.testing.assert_array_equal(matrix.sparse().toarray(), weight)
    np.testing.assert_array_equal(matrix.absolute().dense(), np.abs(weight))
    for batch in (0, 1, 5, 300):
        x = generator.normal(size=(batch, weight.shape[1])).astype(weight.dtype)
        rows = generator.normal(size=(weight.shape[0], batch)).astype(weight.dtype).T
        for found, expected in (
            (matrix.forward(x), x @ weight.T),
            (matrix.absolute().forward(x), x @ np.abs(weight).T),
            (matrix.backward(rows), rows @ weight),
        ):
            assert found.dtype == weight.dtype
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("name", LAYERS)
def test_blocks_are_the_dense_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in float32, and when one product is made in many parts."""
    matrix, dense = both(name)
    assert name != "same" or matrix.num_stored < 0.2 * dense.num_stored
    check_same(matrix, dense, 1e-12)
    check_same(matrix.single(), dense.single(), 1e-4)
    monkeypatch.setattr(blocks, "GATHERED", 100)
    monkeypatch.setattr(blocks, "PRODUCTS", 5000)
    check_same(matrix, dense, 1e-12)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("share", [1.0, 0.8, 0.2, 0.02, 0.0])
@pytest.mark.parametrize("name", LAYERS)
def test_restricted_to_some_rows_and_columns(name: str, share: float) -> None:
    matrix, dense = both(name)
    for seed in range(3):
        generator = np.random.default_rng(seed)
        rows, columns = (generator.random(size) < share for size in matrix.shape)
        found, expected = matrix.restricted(rows, columns), dense.restricted(rows, columns)
        assert isinstance(found, BlockMatrix) or 0 in found.shape
        assert found.num_stored <= matrix.num_stored
        check_same(found, expected, 1e-12)
        rows, columns = (generator.random(size) < 0.5 for size in found.shape)
        check_same(found.restricted(rows, columns), expected.restricted(rows, columns), 1e-12)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("name", LAYERS)
def test_rounding_stays_below_gamma(name: str) -> None:
    """Against fractions, where sums cancel: what bounds subtract for rounding is enough."""
    matrix, dense = both(name)
    generator = np.random.default_rng(2)
    exact = np.vectorize(Fraction, otypes=[object])
    products = (
        (matrix.forward, matrix.absolute().forward, dense.weight.T),
        (matrix.backward, DenseMatrix(np.abs(dense.weight)).backward, dense.weight),
    )
    for product, magnitudes, weight in products:
        x = generator.normal(size=(2, len(weight))) * 10.0 ** generator.integers(-8, 8, len(weight))
        some = generator.permutation(weight.shape[1])[:20]
        true = exact(x) @ exact(weight[:, some])
        limit = gamma(len(weight)) * magnitudes(np.abs(x))[:, some]
        assert (abs(exact(product(x)[:, some]) - true) <= limit).all()


def test_only_large_matrices_of_few_weights_are_in_blocks() -> None:
    network = convolutional(np.random.default_rng(0), (28, 28), (16, 32), 100, 10)
    kinds = [type(layer.matrix) for layer in network.layers]
    assert kinds == [BlockMatrix, BlockMatrix, DenseMatrix, DenseMatrix]
    small = convolutional(np.random.default_rng(0), (8, 8), (4, 4), 10, 3)
    assert {type(layer.matrix) for layer in small.layers} == {DenseMatrix}
    irregular = sparse.random_array((400, 400), density=0.2, rng=np.random.default_rng(0))
    assert isinstance(stored(sparse.csr_array(irregular)), DenseMatrix)
    kept = [np.arange(len(mask)) % 50 == 0 for mask in network.linear]
    assert isinstance(network.restricted(kept).layers[1].matrix, DenseMatrix)


def test_what_is_stored_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(width: int) -> ReluNetwork:
        return convolutional(np.random.default_rng(0), (28, 28), (16, 32), width, 10)

    monkeypatch.setattr(matrices, "MAX_WEIGHTS", 420_000)  # of 3136 * 1568 dense
    network(100)
    with pytest.raises(CertiflowError, match=r"of 470,400 weights: at most 420,000 .* smaller"):
        network(300)
    monkeypatch.setattr(matrices, "MAX_WEIGHTS", 400_000)
    with pytest.raises(CertiflowError, match=r"of 401,408 weights: at most 400,000"):
        network(100)


def test_networks_in_blocks_are_sent_small_and_known_by_their_digest() -> None:
    network = convolutional(np.random.default_rng(0), (28, 28), (16, 32), 100, 10)
    before = pickle.dumps(network)
    x = np.random.default_rng(1).random((3, 784))
    outputs = network(x)
    network.gradient(network.preactivations(x), np.ones((3, 10)))
    assert len(pickle.dumps(network)) == len(before) < 6e6  # dense: 59 MB
    again = pickle.loads(before)
    np.testing.assert_array_equal(again(x), outputs)
    assert again.sha256 == network.sha256
    second = network.layers[1].matrix
    assert isinstance(second, BlockMatrix)
    (part,) = second.parts
    part.weights[3, 2, 1] = np.nextafter(part.weights[3, 2, 1], 2)
    assert replace(network).sha256 != again.sha256
    part.weights[3, 2, 1] = again.layers[1].matrix.parts[0].weights[3, 2, 1]
    assert replace(network).sha256 == again.sha256
    part.columns[3, :2] = part.columns[3, 1::-1]
    assert replace(network).sha256 != again.sha256


@pytest.mark.usefixtures("in_blocks")
def test_a_weight_that_is_not_finite_is_refused() -> None:
    matrix, _ = both("same")
    matrix.parts[0].weights[0, 0, 0] = np.inf
    with pytest.raises(CertiflowError, match="NaN"):
        ReluNetwork((Affine(matrix, np.zeros(matrix.shape[0])),))


@pytest.mark.usefixtures("in_blocks")
def test_inputs_are_given_behind_the_outputs() -> None:
    plain = random_network(np.random.default_rng(0), (5, 7, 6, 3))
    network = convolutional(np.random.default_rng(0), (5, 6), (3,), 4, 2)
    x = np.random.default_rng(1).normal(size=(4, 30))
    for one, points in ((plain, x[:, :5]), (network, x), (ReluNetwork(plain.layers[:1]), x[:, :5])):
        whole = one.with_inputs()
        expected = np.hstack([one(points), points])
        np.testing.assert_allclose(whole(points), expected, atol=1e-12)
        assert all(isinstance(layer.matrix, BlockMatrix) for layer in whole.layers)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("name", LAYERS)
def test_spans_hold_each_units_weights(name: str) -> None:
    matrix, dense = both(name)
    found = Spans.of(matrix)
    rebuilt = np.zeros_like(dense.weight)
    for unit in range(len(rebuilt)):
        for span in range(found.ends[unit], found.ends[unit + 1]):
            weights = found.weights[found.starts[span] : found.starts[span + 1]]
            rebuilt[unit, found.inputs[span] :][: len(weights)] += weights
    np.testing.assert_array_equal(rebuilt, dense.weight)
    assert len(found.weights) < dense.num_stored


def test_products_of_blocks_are_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads(*_: object) -> None:
        seen.append({library.get_num_threads() for library in libraries.lib_controllers})

    network = convolutional(np.random.default_rng(0), (28, 28), (16, 32), 100, 10)
    libraries = blocks._linear_algebra()
    seen: list[set[int]] = []
    for name in ("set_forward", "add_backward"):
        monkeypatch.setattr(blocks.Blocks, name, threads)
    matrix = network.layers[1].matrix
    with libraries.limit(limits=2):
        matrix.forward(np.zeros((1, matrix.shape[1])))
        matrix.backward(np.zeros((1, matrix.shape[0])))
        threads()
    assert seen == [{1}, {1}, {2}]
