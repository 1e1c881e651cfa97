"""Keras's graph of layers: what made a tensor, and whether that is a layer as Keras wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tasks.core.errors import CertiflowError
from tasks.core.tensors.windows import Shape

if TYPE_CHECKING:
    import keras

COPY = "_logits"  # behind the name of a layer that is copied without its activation

SUPPORTED = (
    "Dense, Conv2D, DepthwiseConv2D, Conv2DTranspose, BatchNormalization, Normalization, "
    "Rescaling, AveragePooling2D, MaxPooling2D, GlobalAveragePooling2D, UpSampling2D, Add, "
    "Multiply, ReLU, LeakyReLU, PReLU, ELU, Softmax, Flatten, Reshape, Permute, Dropout, and the "
    "activations linear, relu, relu6, leaky_relu, elu, selu, celu, gelu, silu, hard_silu, "
    "softplus, exponential, sigmoid, hard_sigmoid, tanh, hard_tanh and softmax"
)

T = TypeVar("T")


def is_of_keras(thing: Any) -> bool:
    """Whether a layer or model computes what Keras's own code says, which a subclass can change."""
    return type(thing).__module__.startswith("keras.src.")


def made_by(tensor: Any) -> tuple[keras.layers.Layer, Any]:
    """The layer that gives a symbolic tensor, and the call that did: its tensors and arguments."""
    operation, node_index, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node_index]


def unsupported(what: str) -> CertiflowError:
    """Names what cannot be verified, and what can."""
    return CertiflowError(
        f"({what}) cannot be verified: supported are {SUPPORTED}; choose another architecture"
    )


def check_layer(layer: keras.layers.Layer) -> None:
    """Refuses what computes another function than Keras's float32 layer of the same parameters."""
    kind = type(layer)
    if not is_of_keras(layer):
        raise unsupported(f"{kind.__name__} of {kind.__module__}")
    mode = getattr(layer, "quantization_mode", None) or getattr(layer, "compute_dtype", "float32")
    if mode != "float32":
        raise unsupported(f"{kind.__name__} in {mode}")


def check_call(layer: keras.layers.Layer, call: Any) -> None:
    """Refuses what a layer is given besides its input, or the one list of inputs of a merge.

    A mask takes elements out of a softmax; by training=True a layer sees the whole batch.
    """
    import keras

    is_merge = isinstance(layer, keras.layers.Add | keras.layers.Multiply)
    given = {f"argument {place}": value for place, value in enumerate(call.arguments.args[1:], 2)}
    for name, value in (given | call.arguments.kwargs).items():
        if value is not None and value is not False:
            shown = f"{name} = {value}" if isinstance(value, bool) else name
            raise CertiflowError(
                f"({type(layer).__name__}) is called with {shown}, which cannot be verified; "
                "build the model without it"
            )
    if len(call.input_tensors) != 1 and not is_merge:
        raise CertiflowError(
            f"({type(layer).__name__}) is called with {len(call.input_tensors)} inputs, which "
            "cannot be verified; build the model with one"
        )


def only_input(model: keras.Model) -> Any:
    """The model's one symbolic input, float32 of fixed shape; it has one output as well."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not (is_of_keras(model) and inputs and outputs and len(inputs) == len(outputs) == 1):
        raise CertiflowError(
            f"model '{model.name}' is a {type(model).__name__}: only a keras.Sequential or a "
            "functional keras.Model of known input shape, with one input and one output, can be "
            "verified"
        )
    if None in inputs[0].shape[1:]:
        raise CertiflowError(
            f"model '{model.name}' takes inputs of shape {inputs[0].shape}: give it a fixed one"
        )
    kind = "sparse" if inputs[0].sparse else inputs[0].dtype
    if kind != "float32":
        raise CertiflowError(
            f"input '{inputs[0].name}' is {kind}, to which Keras casts what it is fed; expected "
            "float32: build the model with such an input"
        )
    return inputs[0]


class Walk(Generic[T]):
    """What becomes of a model's tensors, from the output back; each is made once."""

    def __init__(self, model: keras.Model, source: Any, value: T) -> None:
        """`value` is what becomes of the symbolic tensor `source`, the model's input."""
        self._numbers = {layer.name: number for number, layer in enumerate(model.layers, start=1)}
        self._made = {id(source): value}

    def value(self, symbol: Any) -> T:
        """What becomes of a symbolic tensor; raises `CertiflowError` naming the layer."""
        if id(symbol) not in self._made:
            layer, call = made_by(symbol)
            inputs = [self.value(tensor) for tensor in call.input_tensors]
            try:
                check_layer(layer)
                self._made[id(symbol)] = self.result(layer, inputs, symbol.shape)
                check_call(layer, call)
            except CertiflowError as error:
                name = layer.name.removesuffix(COPY)
                number = self._numbers.get(name, "outside of layers")
                raise CertiflowError(f"layer {number} '{name}' {error}") from error
        return self._made[id(symbol)]

    def result(self, layer: keras.layers.Layer, inputs: list[T], shape: Shape) -> T:
        """What the layer makes of its inputs, of Keras's shape; errors begin at its name."""
        raise NotImplementedError
