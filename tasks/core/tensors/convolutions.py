"""Convolutions and average pooling of a lowering's tensors, as sparse matrices."""

from __future__ import annotations

from math import prod

import numpy as np
from scipy import sparse

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.errors import CertiflowError
from tasks.core.networks.matrices import check_size
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Shape, Window


def convolved(tensor: Tensor, kernel: FloatArray, window: Window, groups: int) -> Tensor:
    """The convolution of (1, channels, *sizes) by a kernel (filters, channels / groups, *extents).

    Bias excluded: add it afterwards.
    """
    _, channels, *spatial = tensor.shape
    sizes = tuple(spatial)
    filters, group_channels = kernel.shape[:2]
    if group_channels * groups != channels or filters % groups:
        raise CertiflowError(
            f"a kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels"
        )
    under = window.indices(sizes)  # (windows, window size)
    check_size(kernel.size * len(under))
    first_channel = np.arange(filters) // (filters // groups) * group_channels
    channel = first_channel[:, None] + np.arange(group_channels)
    rows = np.arange(filters)[:, None, None, None] * len(under) + np.arange(len(under))[:, None]
    columns = channel[:, :, None, None] * prod(sizes) + under
    weights = kernel.reshape(filters, group_channels, 1, -1)
    shape = np.broadcast_shapes(rows.shape, columns.shape)
    used = np.broadcast_to(under >= 0, shape)
    data, row, column = (np.broadcast_to(part, shape)[used] for part in (weights, rows, columns))
    matrix = sparse.csr_array(
        (data, (row, column)), shape=(filters * len(under), len(tensor.constant))
    )
    return tensor.mapped(matrix, (1, filters, *window.counts(sizes)))


def transposed_convolved(
    tensor: Tensor, kernel: FloatArray, window: Window, added: Shape, groups: int
) -> Tensor:
    """The transposed convolution by a kernel (channels, filters / groups, *extents), bias excluded.

    The matrix of the convolution that reads the result, transposed. `window` has the padding that
    is cut off, `added` what the result is longer by on its last sides.
    """
    _, channels, *spatial = tensor.shape
    group_filters = kernel.shape[1]
    if kernel.shape[0] != channels or channels % groups:
        raise CertiflowError(
            f"a kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels"
        )
    sizes = tuple(
        stride * (size - 1) + more + dilation * (extent - 1) + 1 - before - after
        for size, stride, more, dilation, extent, before, after in zip(
            spatial,
            window.strides,
            added,
            window.dilations,
            window.extents,
            window.before,
            window.after,
            strict=True,
        )
    )
    if min(sizes) < 1:
        raise CertiflowError(f"pads of {window.before} and {window.after} leave nothing of {sizes}")
    under = window.indices(sizes)[: prod(spatial)]  # where each element of the input adds to
    check_size(kernel.size * len(under))
    first_filter = np.arange(channels) // (channels // groups) * group_filters
    filters = first_filter[:, None] + np.arange(group_filters)
    columns = np.arange(channels)[:, None, None, None] * len(under) + np.arange(len(under))[:, None]
    rows = filters[:, :, None, None] * prod(sizes) + under
    weights = kernel.reshape(channels, group_filters, 1, -1)
    shape = np.broadcast_shapes(rows.shape, columns.shape)
    used = np.broadcast_to(under >= 0, shape)
    data, row, column = (np.broadcast_to(part, shape)[used] for part in (weights, rows, columns))
    size = groups * group_filters
    matrix = sparse.csr_array(
        (data, (row, column)), shape=(size * prod(sizes), len(tensor.constant))
    )
    return tensor.mapped(matrix, (1, size, *sizes))


def average_pooled(tensor: Tensor, window: Window, count_padding: bool) -> Tensor:
    """Means over the windows of (1, channels, *sizes); padding counts as zeros or not at all."""
    under, shape = channel_windows(tensor, window)
    used = under >= 0
    counts = np.full(len(under), under.shape[1]) if count_padding else used.sum(axis=1)
    return averaged(tensor, under, 1 / counts).taken(np.arange(len(under)).reshape(shape))


def averaged(tensor: Tensor, positions: IntArray, weights: FloatArray) -> Tensor:
    """Row sums over `positions`, (rows, k), each times its weight; -1 stands for a zero."""
    rows, places = np.nonzero(positions >= 0)
    matrix = sparse.csr_array(
        (weights[rows], (rows, positions[rows, places])),
        shape=(len(positions), len(tensor.constant)),
    )
    return tensor.mapped(matrix, (len(positions),))


def channel_windows(tensor: Tensor, window: Window) -> tuple[IntArray, Shape]:
    """Positions under each channel's windows, (channels * windows, k), and the result's shape."""
    _, channels, *sizes = tensor.shape
    under = window.indices(tuple(sizes))
    if (under < 0).all(axis=1).any():
        raise CertiflowError(f"a pooling window of {window.extents} lies in the padding alone")
    offsets = np.arange(channels)[:, None, None] * prod(sizes)
    positions = np.where(under < 0, -1, under + offsets).reshape(-1, under.shape[1])
    return positions, (1, channels, *window.counts(tuple(sizes)))
