"""A small table of loans with its schema, and models of it as other tools write them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pandas as pd
import yaml
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from tasks.core.data.datasets import Dataset
from tasks.core.sources.own_data import load_own

SCHEMA = {
    "source": "loans.csv",
    "target": "status",
    "classes": ["paid", "default"],
    "positive": "default",
    "features": [
        {"name": "amount", "upper": 10_000, "unit": "EUR"},
        {"name": "months", "kind": "integer", "lower": 4, "upper": 72},
        {"name": "age", "kind": "integer", "lower": 18, "upper": 80, "mutable": False},
        {"name": "job", "kind": "category", "categories": ["A", "B", "C"], "mutable": False},
    ],
    "relations": ["amount >= 20 * months"],
}
ROWS = 400


def write_loans(folder: Path) -> Path:
    """`loans.csv` and its schema, whose path it returns."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "amount": generator.uniform(1500, 10_000, ROWS).round(2),
            "months": generator.integers(4, 73, ROWS),
            "age": generator.integers(18, 81, ROWS),
            "job": generator.choice(["A", "B", "C"], ROWS),
        }
    )
    risk = frame["amount"] / 10_000 + frame["months"] / 72 + (frame["job"] == "C") * 0.5
    risk += generator.normal(0, 0.1, ROWS)
    frame["status"] = np.where(risk > 1.5, "default", "paid")
    frame.to_csv(folder / "loans.csv", index=False)
    schema = folder / "loans.yaml"
    schema.write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    return schema


def trained(data: Dataset, epochs: int = 40) -> keras.Sequential:
    """Raw values through a normalisation to a softmax, as Keras' guides build it."""
    keras.utils.set_random_seed(0)
    normalisation = keras.layers.Normalization()
    normalisation.adapt(data.train_inputs)
    model = keras.Sequential(
        [
            keras.Input(data.input_shape),
            normalisation,
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(data.train_inputs, data.train_labels, epochs=epochs, batch_size=32, verbose=0)
    return model


def save_as_scikit_learn(model: keras.Sequential, path: Path) -> None:
    """`trained` as skl2onnx writes it: a Scaler, one sigmoid, probabilities of both classes."""
    normalisation, hidden, last = model.layers
    weights, bias = (np.asarray(each) for each in last.get_weights())
    constants = {
        "w0": np.asarray(hidden.get_weights()[0]),
        "b0": np.asarray(hidden.get_weights()[1]),
        "w1": weights[:, 1:] - weights[:, :1],
        "b1": bias[1:] - bias[:1],
        "one": np.array(1, dtype=np.float32),
    }
    scaler = make_node(
        "Scaler",
        ["x"],
        ["scaled"],
        domain="ai.onnx.ml",
        offset=np.asarray(normalisation.mean).ravel().tolist(),
        scale=(1 / np.sqrt(np.asarray(normalisation.variance))).ravel().tolist(),
    )
    nodes = [
        scaler,
        make_node("MatMul", ["scaled", "w0"], ["m0"]),
        make_node("Add", ["m0", "b0"], ["a0"]),
        make_node("Relu", ["a0"], ["h"]),
        make_node("MatMul", ["h", "w1"], ["m1"]),
        make_node("Add", ["m1", "b1"], ["z"]),
        make_node("Sigmoid", ["z"], ["p"]),
        make_node("Sub", ["one", "p"], ["q"]),
        make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = make_graph(
        nodes,
        "graph",
        [make_tensor_value_info("x", float32, [None, model.input_shape[1]])],
        [make_tensor_value_info("probabilities", float32, [None, 2])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [make_opsetid("", 13), make_opsetid("ai.onnx.ml", 1)]
    saved = make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(saved.SerializeToString())


def loans(folder: Path) -> Dataset:
    """The dataset of `write_loans`."""
    return load_own(folder / "loans.yaml")
