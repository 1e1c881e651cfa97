"""Affine maps in ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
from numpy.typing import NDArray

from tasks.core.models.onnx_graph import Graph
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.blocks import Blocks
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import Affine


def affine(graph: Graph, values: str, layer: Affine, factor: float = 1.0) -> str:
    """`layer` of `values`, (rows, inputs), with its matrix times a factor: (rows, outputs).

    A sum has at most `most_terms(layer.matrix)` products, and the bias.
    """
    matrix, bias = layer.matrix, graph.constant(layer.bias)
    if not isinstance(matrix, BlockMatrix):
        return graph.node("Gemm", values, graph.constant(factor * matrix.dense().T), bias)
    parts = [alike for part in matrix.parts for alike in _alike(part)]
    products = [_products(graph, values, part, factor) for part in parts]
    together = products[0] if len(parts) == 1 else graph.node("Concat", *products, axis=1)
    places = _places(parts, matrix.shape[0])
    ordered = _gathered(graph, together, places, sum(part.rows.size for part in parts))
    if (places < 0).any():
        ordered = graph.node("Mul", ordered, graph.constant((places >= 0).astype(np.float32)))
    return graph.node("Add", ordered, bias)


def most_terms(matrix: Matrix) -> int:
    """The most products in a sum: what pads blocks is exactly zero."""
    if isinstance(matrix, BlockMatrix):
        return max((part.weights.shape[2] for part in matrix.parts), default=0)
    return matrix.shape[1]


def _alike(part: Blocks) -> list[Blocks]:
    """Those with the most frequent weights, as a convolution's off the border, and the others."""
    flat = part.weights.reshape(len(part.weights), -1)
    _, of_group, counts = np.unique(flat, axis=0, return_inverse=True, return_counts=True)
    frequent = of_group == counts.argmax()
    return [
        Blocks(part.weights[chosen], part.rows[chosen], part.columns[chosen], part.shape)
        for chosen in (frequent, ~frequent)
        if chosen.any()
    ]


def _products(graph: Graph, values: str, part: Blocks, factor: float) -> str:
    """Of each block after another: (rows, groups * f)."""
    groups, f, k = part.weights.shape
    columns = np.where(part.columns < part.shape[1], part.columns, -1)  # padding: times zero
    gathered = _gathered(graph, values, columns.ravel(), part.shape[1])
    by_group = graph.reshaped(gathered, -1, groups, k)
    weights = factor * part.weights.swapaxes(1, 2)
    if (weights == weights[:1]).all():
        products = graph.node("MatMul", by_group, graph.constant(weights[0]))
    else:
        first = graph.node("Transpose", by_group, perm=[1, 0, 2])
        each = graph.node("MatMul", first, graph.constant(weights))
        products = graph.node("Transpose", each, perm=[1, 0, 2])
    return graph.reshaped(products, -1, groups * f)


def _places(parts: Sequence[Blocks], outputs: int) -> NDArray[np.int64]:
    """Where each output is among the blocks' products; -1: in no block."""
    places, start = np.full(outputs + 1, -1, dtype=np.int64), 0
    for part in parts:
        places[part.rows.ravel()] = start + np.arange(part.rows.size)
        start += part.rows.size
    return places[:-1]


def _gathered(graph: Graph, values: str, places: NDArray[np.int64], size: int) -> str:
    """The columns of `values`, (rows, size), at these places, anything at -1: (rows, places).

    In runs that lie one after the other in both, as long as they can be: an element at a time, most
    of a convolution's time would go to moving.
    """
    run = gcd(len(places), size)
    while run > 1 and not _in_runs(places, run):
        run = next(each for each in range(run - 1, 0, -1) if run % each == 0)
    starts = places.reshape(-1, run).max(axis=1).clip(0) // run
    if run == 1:  # all rows' at once: moved one by one, four bytes would cost what a line costs
        by_column = graph.node("Transpose", values, perm=[1, 0])
        chosen = graph.node("Gather", by_column, graph.constant(starts), axis=0)
        return graph.node("Transpose", chosen, perm=[1, 0])
    runs = graph.reshaped(values, -1, size // run, run)
    return graph.reshaped(
        graph.node("Gather", runs, graph.constant(starts), axis=1), -1, len(places)
    )


def _in_runs(places: NDArray[np.int64], run: int) -> bool:
    """Whether each run of places begins at a multiple of its length, and counts on from there."""
    runs = places.reshape(-1, run)
    offsets = runs - np.arange(run)
    starts = offsets.max(axis=1, where=runs >= 0, initial=0)
    return bool((starts % run == 0).all() and ((runs < 0) | (offsets == starts[:, None])).all())
