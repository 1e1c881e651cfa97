"""What ONNX's operators on images do: convolution, normalisation, pooling; and its reductions."""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tasks.core.errors import CertiflowError
from tasks.core.readers.onnx_node import Node
from tasks.core.tensors.convolutions import (
    average_pooled,
    averaged,
    convolved,
    transposed_convolved,
)
from tasks.core.tensors.tensor import Tensor, along
from tasks.core.tensors.windows import Shape, Window


def conv(node: Node) -> Tensor:
    tensor, kernel = node.image(0), node.weights(1)
    node.require(kernel_shape=list(kernel.shape[2:]))
    window = node.window(tensor, kernel.shape[2:])
    product = convolved(tensor, kernel, window, node.attribute("group", 1))
    if node.is_left_out(2):
        return product
    bias = along(node.vector(2, len(kernel)), 1, len(product.shape))
    return node.lowering.add(product, node.lowering.constant(bias))


def conv_transpose(node: Node) -> Tensor:
    tensor, kernel = node.image(0), node.weights(1)
    extents = kernel.shape[2:]
    rank, groups = len(extents), node.attribute("group", 1)
    node.require(kernel_shape=list(extents))
    strides = node.numbers("strides", (1,) * rank, least=1)
    dilations = node.numbers("dilations", (1,) * rank, least=1)
    added = node.numbers("output_padding", (0,) * rank, least=0)
    pads = node.numbers("pads", (0, 0) * rank, least=0)
    if node.attribute("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        raise CertiflowError("auto_pad cannot be verified here; export the model with pads")
    if node.attribute("output_shape", None) is not None:
        raise CertiflowError("output_shape cannot be verified; export the model with pads")
    if any(more >= stride for more, stride in zip(added, strides, strict=True)):
        raise CertiflowError(f"output_padding = {added} is not below strides = {strides}")
    window = Window(extents, strides, dilations, pads[:rank], pads[rank:])
    product = transposed_convolved(tensor, kernel, window, added, groups)
    if node.is_left_out(2):
        return product
    bias = along(node.vector(2, product.shape[1]), 1, len(product.shape))
    return node.lowering.add(product, node.lowering.constant(bias))


def resize(node: Node) -> Tensor:
    """To the nearest elements, which moves them; Upsample is its older form."""
    node.require(
        mode=b"nearest",
        antialias=0,
        exclude_outside=0,
        keep_aspect_ratio_policy=b"stretch",
    )
    way = node.attribute("coordinate_transformation_mode", b"half_pixel")
    if way not in {b"asymmetric", b"half_pixel", b"pytorch_half_pixel"}:
        raise CertiflowError(
            f"coordinate_transformation_mode = {way.decode()} cannot be verified; expected "
            "asymmetric, half_pixel or pytorch_half_pixel"
        )
    for moving in ("nearest_mode", "cubic_coeff_a", "extrapolation_value", "axes"):
        node.attribute(moving, None)
    tensor = node.tensor(0)
    if node.opset <= 10:
        scales = node.array(1) if node.opset > 8 else node.attribute("scales", None)
        places = tensor.positions
        for axis, scale in enumerate(np.asarray(scales, dtype=np.float64).tolist()):
            if scale != round(scale) or scale < 1:
                raise CertiflowError(f"scales = {scales} cannot be verified; expected whole ones")
            places = np.repeat(places, int(scale), axis=axis)
        return tensor.taken(places)
    (moved,) = node.evaluated([tensor.positions.astype(np.float64), *node.constants(1)])
    if any(after % before for after, before in zip(moved.shape, tensor.shape, strict=True)):
        raise CertiflowError(
            f"from the shape {tensor.shape} to {moved.shape}: runtimes round otherwise; expected "
            "whole multiples"
        )
    return tensor.taken(np.rint(moved).astype(np.int64))


def batch_normalization(node: Node) -> Tensor:
    node.require(training_mode=0, spatial=1)
    if sum(map(bool, node.proto.output)) > 1:
        raise CertiflowError("outputs of training are asked for: export the model for inference")
    tensor = node.tensor(0)
    scale, shift, mean, variance = (node.vector(index, tensor.shape[1]) for index in range(1, 5))
    return node.lowering.batch_normalised(
        tensor,
        1,
        scale=scale,
        shift=shift,
        mean=mean,
        variance=variance,
        epsilon=float(np.float32(node.attribute("epsilon", 1e-5))),
    )


def average_pool(node: Node) -> Tensor:
    tensor, window = _pooling(node)
    count_padding = bool(node.attribute("count_include_pad", 0))
    if count_padding:
        node.require(ceil_mode=0)  # the last windows' divisor differs between versions
    return average_pooled(tensor, window, count_padding)


def max_pool(node: Node) -> Tensor:
    return node.lowering.max_pooled(*_pooling(node))


def _pooling(node: Node) -> tuple[Tensor, Window]:
    """The pooled image, and the window that slides over it."""
    tensor = node.image(0)
    sizes = tensor.shape[2:]
    window = node.window(tensor, node.numbers("kernel_shape", (1,) * len(sizes), least=1))
    return tensor, window.rounded_up(sizes) if node.attribute("ceil_mode", 0) else window


def global_average_pool(node: Node) -> Tensor:
    tensor = node.image(0)
    return _reduced(tensor, tuple(range(2, len(tensor.shape))), keep=True, mean=True)


def reduce(node: Node) -> Tensor:
    tensor = node.tensor(0)
    rank = len(tensor.shape)
    given = node.optional(1)
    axes = node.attribute("axes", []) if given is None else given.tolist()
    keep = bool(node.attribute("keepdims", 1))
    if node.attribute("noop_with_empty_axes", 0) and not axes:
        return tensor
    return _reduced(
        tensor,
        normalize_axis_tuple(axes or range(rank), rank),
        keep=keep,
        mean=node.proto.op_type == "ReduceMean",
    )


def _reduced(tensor: Tensor, axes: Shape, *, keep: bool, mean: bool) -> Tensor:
    """Means or sums over `axes`, which stay with size 1 when `keep`."""
    behind = np.moveaxis(tensor.positions, axes, range(-len(axes), 0))
    rows = behind.reshape(-1, int(np.prod([tensor.shape[axis] for axis in axes])))
    result = averaged(tensor, rows, np.full(len(rows), 1 / rows.shape[1] if mean else 1.0))
    shape = tensor.positions.sum(axis=axes, keepdims=keep).shape
    return result.taken(result.positions.reshape(shape))
