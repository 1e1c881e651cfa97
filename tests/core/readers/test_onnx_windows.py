"""Windows of convolutions and pooling, padded and rounded, lie where onnxruntime puts them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.helper import make_node

from tasks.core.errors import CertiflowError
from tasks.core.models.runtimes import OnnxRuntime
from tasks.core.readers.onnx_network import read_onnx
from tests.model_files import normal, saved_onnx


def drawn(generator: np.random.Generator, operator: str, rank: int) -> dict[str, Any]:
    """Attributes of a window, most of them left out."""

    def numbers(low: int, high: int, count: int = rank) -> list[int]:
        return generator.integers(low, high + 1, count).tolist()

    attributes: dict[str, Any] = {"kernel_shape": numbers(1, 3)}
    if generator.random() < 0.7:
        attributes["strides"] = numbers(1, 4)
    if generator.random() < 0.4:
        attributes["dilations"] = numbers(1, 2)
    match generator.integers(4):
        case 0:
            attributes["pads"] = numbers(0, 2, 2 * rank)
        case 1 | 2:
            ways = ["SAME_UPPER", "SAME_LOWER", "VALID"]
            attributes["auto_pad"] = str(generator.choice(ways))
    if operator != "Conv" and generator.random() < 0.4:
        attributes["ceil_mode"] = 1
    if operator == "AveragePool" and generator.random() < 0.5:
        attributes["count_include_pad"] = 1
    return attributes


@pytest.mark.parametrize("opset", [19, 28])
@pytest.mark.parametrize("operator", ["Conv", "AveragePool", "MaxPool"])
def test_windows_are_onnxruntimes(operator: str, opset: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(opset)
    outcomes: Counter[str] = Counter()
    for _ in range(300):
        rank = int(generator.integers(1, 3))
        sizes = generator.integers(3, 10, rank).tolist()
        attributes = drawn(generator, operator, rank)
        kernel = {"k": normal(2, 2, *attributes["kernel_shape"])} if operator == "Conv" else {}
        node = make_node(operator, ["x", *kernel], ["y"], **attributes)
        path = saved_onnx(tmp_path, [node], kernel, shape=(1, 2, *sizes), opset=opset)
        try:
            network = read_onnx(path).network
            points = normal(3, 2, *sizes)
            expected = OnnxRuntime(path).logits(points)
        except CertiflowError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        np.testing.assert_allclose(
            network(points), expected, rtol=1e-5, atol=1e-5, err_msg=f"{sizes} {attributes}"
        )
    assert outcomes["read"] > outcomes["refused"] / 2


@pytest.mark.parametrize(
    ("operator", "attributes", "message"),
    [
        ("MaxPool", {"auto_pad": "SAME_UPPER", "dilations": [2, 1]}, r"dilations = \(2, 1\)"),
        ("AveragePool", {"auto_pad": "SAME_LOWER", "dilations": [1, 2]}, "pad this differently"),
        ("Conv", {"auto_pad": "SAME_UPPER", "dilations": [2, 2]}, "export the model with pads"),
        ("Conv", {"auto_pad": "SAME_UPPER", "strides": [1, 3]}, r"strides = \(1, 3\)"),
        ("Conv", {"auto_pad": "SAME_UPPER", "pads": [1, 0, 0, 0]}, "give one of the two"),
        ("Conv", {"kernel_shape": [3, 3]}, r"kernel_shape = \[3, 3\] .*; expected \[2, 2\]"),
        ("Conv", {"pads": [-1, 0, 0, 0]}, r"pads = \(-1, 0, 0, 0\) .*; expected 4 numbers from 0"),
        ("MaxPool", {"strides": [0, 1]}, r"strides = \(0, 1\) .*; expected 2 numbers from 1"),
        ("MaxPool", {"kernel_shape": [2]}, r"kernel_shape = \(2,\) cannot be verified"),
        ("AveragePool", {"ceil_mode": 1, "count_include_pad": 1}, "ceil_mode = 1 cannot"),
        ("MaxPool", {"ceil_mode": 1, "strides": [3, 3]}, "lies in the padding alone"),
    ],
)
def test_windows_that_runtimes_place_differently_are_refused(
    operator: str, attributes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    kernel = {"k": normal(2, 2, 2, 2)} if operator == "Conv" else {}
    node = make_node(operator, ["x", *kernel], ["y"], **{"kernel_shape": [2, 2]} | attributes)
    path = saved_onnx(tmp_path, [node], kernel, shape=(1, 2, 6, 6), opset=19)
    with pytest.raises(CertiflowError, match=rf"node 1 '' \({operator}\): .*{message}"):
        read_onnx(path)
