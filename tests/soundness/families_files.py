"""Keras layers against Keras, and VNN-LIB arithmetic against exact rationals."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tasks.core.properties.vnnlib import read_property
from tests.soundness.findings import Finding

if TYPE_CHECKING:
    import keras

NUM_POINTS = 5
TOLERANCE = 1e-4  # of the outputs' scale: Keras computes in float32
MODELS = 10  # a case, since TensorFlow takes seconds to import
RELATIONS = 100
LEAST = Fraction(1, 2**1060)  # below it float64 has too few digits to tell signs by


def keras_layers(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """Models of a random layer or two, saved, read and compared at random points."""
    import keras

    keras.utils.set_random_seed(int(rng.integers(2**31)))
    return [_same_as_keras(rng, folder / f"model{number}.keras") for number in range(MODELS)]


def _same_as_keras(rng: np.random.Generator, path: Path) -> Finding:
    import keras

    names = rng.choice(list(LAYERS), size=int(rng.integers(1, 3))).tolist()
    dtype = "int32" if rng.random() < 0.2 else "float32"
    what = f"{names} on {dtype}"
    points = (rng.normal(size=(NUM_POINTS, 6, 5, 2)) * 5).astype(np.float32)
    try:
        model = _model(rng, names, dtype)
        model.save(path)
        expected = np.asarray(keras.models.load_model(path)(points, training=False))
    except Exception as error:  # what does not fit, and what TensorFlow has no kernel for
        return Finding("keras", "undecided", f"{what} cannot be: {type(error).__name__}")
    try:
        network = loading.load(path).network
    except CertiflowError as error:
        return Finding("keras", "undecided", f"{what} refused: {error}")
    except Exception as error:
        return Finding("keras", "wrong", f"{what} raises {type(error).__name__}: {error}")
    error = np.abs(network(points) - expected).max() / max(1.0, np.abs(expected).max())
    if not error <= TOLERANCE:
        return Finding("keras", "wrong", f"{what}: relative error {error:.3g}")
    return Finding("keras", "right")


def _model(rng: np.random.Generator, names: list[str], dtype: str) -> keras.Model:
    """The layers in a row, then a dense one, with random weights."""
    import keras

    tensor = source = keras.Input((6, 5, 2), dtype=dtype)
    for name in names:
        tensor = LAYERS[name](rng)(tensor)
    model = keras.Model(source, keras.layers.Dense(3)(keras.layers.Flatten()(tensor)))
    for weight in model.weights:
        values = rng.normal(size=weight.shape) * 0.5
        weight.assign(np.abs(values) if "variance" in weight.path else values)
    return model


def _layer(kind: str, **choices: list[Any]) -> Callable[[np.random.Generator], keras.layers.Layer]:
    """Makes a layer, each argument one of its choices."""

    def make(rng: np.random.Generator) -> keras.layers.Layer:
        import keras

        picked = {name: values[rng.integers(len(values))] for name, values in choices.items()}
        if picked.get("activation") == "ReLU6":
            picked["activation"] = keras.layers.ReLU(max_value=6.0)
        if picked.get("activation") == "LeakyReLU":
            picked["activation"] = keras.layers.LeakyReLU()
        return getattr(keras.layers, kind)(**picked)

    return make


def _subclass(rng: np.random.Generator) -> keras.layers.Layer:
    """A dense layer by inheritance that computes something else."""
    import keras

    @keras.saving.register_keras_serializable("soundness")
    class Negated(keras.layers.Dense):
        def call(self, x: Any, training: bool | None = None) -> Any:
            return -super().call(x)

    return Negated(2)


def _renamed(rng: np.random.Generator) -> keras.layers.Layer:
    """A dense layer whose activation has the name of another."""
    import keras

    @keras.saving.register_keras_serializable("soundness")
    def relu(x: Any) -> Any:
        return keras.ops.relu6(x)

    return keras.layers.Dense(2, activation=relu)


ACTIVATIONS = [None, "relu", "relu6", "tanh", "leaky_relu", "ReLU6", "LeakyReLU"]
LAYERS: dict[str, Callable[[np.random.Generator], keras.layers.Layer]] = {
    "dense": _layer("Dense", units=[2, 3], activation=ACTIVATIONS, use_bias=[True, False]),
    "convolution": _layer(
        "Conv2D",
        filters=[2, 4],
        kernel_size=[1, 2, (2, 3)],
        strides=[1, 2],
        padding=["valid", "same"],
        groups=[1, 2],
        activation=ACTIVATIONS,
    ),
    "dilated": _layer(
        "Conv2D", filters=[2], kernel_size=[2], dilation_rate=[1, 2], padding=["valid", "same"]
    ),
    "depthwise": _layer(
        "DepthwiseConv2D",
        kernel_size=[2, 3],
        strides=[1, 2],
        padding=["valid", "same"],
        depth_multiplier=[1, 2],
    ),
    "rectifier": _layer(
        "ReLU", max_value=[None, None, 6.0], negative_slope=[0.0, 0.0, 0.1], threshold=[0.0, 0.0, 1]
    ),
    "activation": _layer("Activation", activation=ACTIVATIONS[1:5]),
    "normalisation": _layer(
        "BatchNormalization", axis=[-1, 1, 2, 3], center=[True, False], scale=[True, False]
    ),
    "mean": _layer("AveragePooling2D", pool_size=[2, 3], strides=[1, 2], padding=["valid", "same"]),
    "greatest": _layer("MaxPooling2D", pool_size=[2, 3], strides=[1, 2], padding=["valid", "same"]),
    "global": _layer("GlobalAveragePooling2D", keepdims=[True, False]),
    "padding": _layer("ZeroPadding2D", padding=[1, 2]),
    "dropout": _layer("Dropout", rate=[0.5]),
    "noise": _layer("GaussianNoise", stddev=[0.5]),
    "shape": _layer("Reshape", target_shape=[(5, 6, 2), (60,), (-1, 2)]),
    "subclass": _subclass,
    "renamed": _renamed,
    "rescaling": _layer("Rescaling", scale=[0.5], offset=[0.0, 1.0]),
}

Terms = tuple[str, dict[str, Fraction], Fraction]  # text, and the weights and constant it means

NUMBERS = ["1", "3", "0.1", "0.2", "-0.7", "1e16", "1e-16", "9007199254740993", "1e-200", "1e200",
           "1e308", "1e-320", "0.30000000000000000001", "123456789.123456789", "0.0"]  # fmt: skip


def vnnlib_terms(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """Random sums and products, read and compared by sign at points close to the border."""
    return [_same_half_space(rng, folder / f"p{number}.vnnlib") for number in range(RELATIONS)]


def _same_half_space(rng: np.random.Generator, path: Path) -> Finding:
    left, right = _term(rng, 3), _term(rng, 2)
    text, weights, constant = _joined("-", [("Y_0", {"Y_0": Fraction(1)}, Fraction(0)), left])
    operator = str(rng.choice(["<=", ">="]))
    sign = 1 if operator == "<=" else -1
    declared = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    box = [f"(assert (and (>= X_{i} -1) (<= X_{i} 1)))" for i in range(2)]
    path.write_text("\n".join([*declared, *box, f"(assert ({operator} {text} {right[0]}))\n"]))
    _, weights, constant = _joined("-", [(text, weights, constant), right])
    if not any(weights.get(name) for name in ("Y_0", "Y_1")):
        return Finding("vnnlib", "undecided", "the outputs cancel: it bounds the inputs")
    try:
        region = read_property(path, 2, 2).unsafe[0]
    except CertiflowError as error:
        return Finding("vnnlib", "undecided", f"refused: {error}")
    row = dict(zip(("Y_0", "Y_1", "X_0", "X_1"), map(Fraction, region.rows[0].tolist())))  # noqa: B905 X may be left out
    for _ in range(NUM_POINTS):
        point = {
            name: Fraction(float(value))
            for name, value in zip(("X_0", "X_1", "Y_0", "Y_1"), rng.normal(size=4), strict=True)
        }
        point = _near_border(rng, weights, constant, point)
        exact, size = _value(weights, constant, point)
        read, _ = _value(row, Fraction(float(region.offsets[0])), point)
        told = abs(exact) > size / 2**44 + LEAST and (sign * exact > 0) != (read > 0)
        if told and not -LEAST <= read <= 0:  # rounded outwards by the least float64 number
            words = f"{operator} {text} {right[0]}: exact {float(sign * exact):.6g}, read as "
            return Finding("vnnlib", "wrong", words + f"{float(read):.6g}")
    return Finding("vnnlib", "right")


def _near_border(
    rng: np.random.Generator,
    weights: dict[str, Fraction],
    constant: Fraction,
    point: dict[str, Fraction],
) -> dict[str, Fraction]:
    """The point with Y_0 such that the relation is all but a tie, where Y_0 counts."""
    if not weights.get("Y_0"):
        return point
    point = point | {"Y_0": Fraction(0)}
    value, size = _value(weights, constant, point)
    aside = size * Fraction(float(rng.choice([-1.0, 1.0]) * 2.0 ** -rng.integers(1, 40)))
    return point | {"Y_0": (aside - value) / weights["Y_0"]}


def _value(
    weights: dict[str, Fraction], constant: Fraction, point: dict[str, Fraction]
) -> tuple[Fraction, Fraction]:
    """The relation's left side, and the sum of its terms' magnitudes."""
    terms = [constant, *(weight * point[name] for name, weight in weights.items())]
    return sum(terms, Fraction(0)), sum(map(abs, terms), Fraction(0))


def _term(rng: np.random.Generator, depth: int) -> Terms:
    kind = rng.choice(["variable", "number", "+", "-", "*"]) if depth else "number"
    match kind:
        case "variable":
            name = str(rng.choice(["X_0", "X_1", "Y_0", "Y_1"]))
            return name, {name: Fraction(1)}, Fraction(0)
        case "number":
            number = str(rng.choice(NUMBERS))
            return number, {}, Fraction(number)
        case "*":
            return _times(_term(rng, 0), _term(rng, depth - 1))
    return _joined(str(kind), [_term(rng, depth - 1) for _ in range(int(rng.integers(1, 4)))])


def _times(factor: Terms, term: Terms) -> Terms:
    by = factor[2]
    weights = {name: by * weight for name, weight in term[1].items()}
    return f"(* {factor[0]} {term[0]})", weights, by * term[2]


def _joined(operator: str, terms: list[Terms]) -> Terms:
    """`(+ a b …)`, or `(- a b …)`, which negates the last ones, or the only one."""
    text = f"({operator} {' '.join(term[0] for term in terms)})"
    weights: dict[str, Fraction] = {}
    constant = Fraction(0)
    for place, (_, names, value) in enumerate(terms):
        sign = -1 if operator == "-" and (place > 0 or len(terms) == 1) else 1
        constant += sign * value
        for name, weight in names.items():
            weights[name] = weights.get(name, Fraction(0)) + sign * weight
    return text, weights, constant
