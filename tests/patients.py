"""scikit-learn's diabetes patients as a table whose target is a number, and models of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from sklearn.datasets import load_diabetes
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from tasks.core.data.datasets import Dataset

TOLERANCE = 80
WHOLE = ("age", "sex", "s1", "s6")


def write_patients(folder: Path) -> Path:
    """`patients.csv` and its schema, whose path it returns."""
    frame = load_diabetes(scaled=False, as_frame=True).frame.rename(columns={"target": "progress"})
    frame.to_csv(folder / "patients.csv", index=False)
    features = [
        {
            "name": name,
            "kind": "integer" if name in WHOLE else "real",
            "lower": float(frame[name].min()),
            "upper": float(frame[name].max()),
            "mutable": name not in ("age", "sex"),
        }
        for name in frame.columns[:-1]
    ]
    schema = {"source": "patients.csv", "target": "progress", "tolerance": TOLERANCE}
    path = folder / "patients.yaml"
    path.write_text(yaml.safe_dump({**schema, "features": features}))
    return path


def save_regressor(data: Dataset, path: Path, hidden: int) -> tuple[StandardScaler, MLPRegressor]:
    """A scaler and a perceptron, trained, and in `path` as skl2onnx writes them."""
    inputs, targets = data.train_inputs[:, :-1], data.train_inputs[:, -1]
    scaler = StandardScaler().fit(inputs)
    model = MLPRegressor(
        hidden_layer_sizes=(hidden,), solver="lbfgs", alpha=100.0, max_iter=3000, random_state=0
    ).fit(scaler.transform(inputs), targets)
    constants = {
        "shape": np.array([-1, 1], np.int64),
        **{f"w{place}": each.astype(np.float32) for place, each in enumerate(model.coefs_)},
        **{
            f"b{place}": each[None].astype(np.float32)
            for place, each in enumerate(model.intercepts_)
        },
    }
    nodes = [
        make_node(
            "Scaler",
            ["x"],
            ["scaled"],
            domain="ai.onnx.ml",
            offset=scaler.mean_.tolist(),
            scale=(1 / scaler.scale_).tolist(),
        ),
        make_node("Cast", ["scaled"], ["cast"], to=onnx.TensorProto.FLOAT),
        make_node("MatMul", ["cast", "w0"], ["m0"]),
        make_node("Add", ["m0", "b0"], ["a0"]),
        make_node("Relu", ["a0"], ["h"]),
        make_node("MatMul", ["h", "w1"], ["m1"]),
        make_node("Add", ["m1", "b1"], ["a1"]),
        make_node("Reshape", ["a1", "shape"], ["variable"]),
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = make_graph(
        nodes,
        "ONNX(Pipeline)",
        [make_tensor_value_info("x", float32, [None, inputs.shape[1]])],
        [make_tensor_value_info("variable", float32, [None, 1])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [make_opsetid("", 21), make_opsetid("ai.onnx.ml", 1)]
    path.write_bytes(make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return scaler, model
