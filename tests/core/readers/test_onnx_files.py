"""ONNX files that are no graph with one meaning, one input and one output are refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx.helper import make_node, make_opsetid, make_tensor_value_info

from tasks.core.errors import CertiflowError
from tasks.core.models.runtimes import OnnxRuntime
from tasks.core.readers.onnx_network import read_onnx
from tests.model_files import normal, saved_onnx


@pytest.mark.parametrize("opset", [1, 6, 29])
def test_opsets_of_another_meaning_are_refused(opset: int, tmp_path: Path) -> None:
    """Add-6 broadcasts along its axis, BatchNormalization-6 trains where it is not told not to."""
    node = make_node("Add", ["x", "a"], ["y"], axis=1, broadcast=1)
    path = saved_onnx(tmp_path, [node], {"a": normal(4)}, opset=opset)
    message = rf"opset {opset} cannot be verified; expected one from 7 to 28: convert the model"
    with pytest.raises(CertiflowError, match=message):
        read_onnx(path)


@pytest.mark.parametrize(
    ("opsets", "found"),
    [
        ({"ai.onnx.ml": 3}, "none"),
        ({"": 13, "ai.onnx": 14}, "13, 14"),
    ],
)
def test_files_of_no_or_two_opsets_are_refused(
    opsets: dict[str, int], found: str, tmp_path: Path
) -> None:
    path = saved_onnx(tmp_path, [make_node("Relu", ["x"], ["y"])])
    model = onnx.load(path)
    del model.opset_import[:]
    model.opset_import.extend(make_opsetid(*opset) for opset in opsets.items())
    onnx.save(model, path)
    with pytest.raises(CertiflowError, match=f"opset {found} cannot be verified"):
        read_onnx(path)


@pytest.mark.parametrize("twice", ["x", "a", "h"])
def test_names_given_twice_are_refused(twice: str, tmp_path: Path) -> None:
    nodes = [make_node("Add", ["x", "a"], ["h"]), make_node("Neg", ["h"], [twice])]
    path = saved_onnx(tmp_path, [*nodes, make_node("Relu", [twice], ["y"])], {"a": normal(4)})
    with pytest.raises(CertiflowError, match=f"'{twice}' is given twice"):
        read_onnx(path)


def test_initializers_of_one_name_are_refused(tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, [make_node("Add", ["x", "a"], ["y"])], {"a": normal(4)})
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(normal(4, seed=1), "a"))
    onnx.save(model, path)
    with pytest.raises(CertiflowError, match="'a' is given twice"):
        read_onnx(path)


def test_only_one_float32_input_of_fixed_shape(tmp_path: Path) -> None:
    nodes = [make_node("Relu", ["x"], ["y"])]
    with pytest.raises(CertiflowError, match="'x' has a dimension of no or unknown size"):
        read_onnx(saved_onnx(tmp_path, nodes, shape=(1, "width")))
    with pytest.raises(CertiflowError, match="'x' has a dimension of no or unknown size"):
        read_onnx(saved_onnx(tmp_path, nodes, shape=(0, 4)))
    path = saved_onnx(tmp_path, nodes)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, path)
    with pytest.raises(CertiflowError, match=r"input 'x' is DOUBLE; expected FLOAT \(float32\)"):
        read_onnx(path)
    model.graph.input.append(make_tensor_value_info("z", onnx.TensorProto.FLOAT, (1, 4)))
    onnx.save(model, path)
    with pytest.raises(CertiflowError, match="expected one input, the graph has 2: x, z"):
        read_onnx(path)


def test_only_one_output(tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, [make_node("Relu", ["x"], ["y"])])
    model = onnx.load(path)
    model.graph.output.append(make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 4)))
    onnx.save(model, path)
    with pytest.raises(CertiflowError, match="expected one output, the graph has 2"):
        read_onnx(path)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(CertiflowError, match="no such file"):
        read_onnx(tmp_path / "absent.onnx")
    path = tmp_path / "model.onnx"
    for content in (b"", b"(declare-const X_0 Real)", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(CertiflowError, match="not an ONNX file"):
            read_onnx(path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    path = saved_onnx(tmp_path, [make_node("Add", ["x", "a"], ["y"])], {"a": normal(4)})
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../secret")
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    for refused in (read_onnx, lambda model: OnnxRuntime(model).logits(normal(1, 4))):
        with pytest.raises(CertiflowError, match="'a' is kept in another file"):
            refused(path)


def test_onnxruntime_refusing_a_model_is_one_line(tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, [make_node("Relu", ["x"], ["y"])], opset=999)
    with pytest.raises(CertiflowError, match="onnxruntime cannot run this model: ") as caught:
        OnnxRuntime(path).logits(normal(1, 4))
    assert "\n" not in str(caught.value)
