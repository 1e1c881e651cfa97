"""The end of a Keras model: a softmax, or a single sigmoid, is taken off its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.errors import CertiflowError
from tasks.core.readers.keras_graph import (
    COPY,
    check_call,
    check_layer,
    is_of_keras,
    made_by,
    only_input,
)
from tasks.core.tensors.endings import LEAST, THRESHOLD, Ending

if TYPE_CHECKING:
    import keras


def ends_of(model: keras.Model) -> tuple[Any, Any, Ending]:
    """The symbolic tensors of a classifier's input and logits, and what it makes of the logits.

    Raises `CertiflowError` where it has not one input of fixed shape, or no logits or weights.
    """
    source = only_input(model)
    logits, ending = logits_of(model)
    if _is_rectified(logits):
        raise CertiflowError(
            "the model ends with a ReLU: robustness is proved on logits; end it with a Dense layer"
        )
    if not any(layer.weights for layer in model.layers):
        raise CertiflowError("the model has no layer with weights: there is nothing to verify")
    return source, logits, ending


def logits_of(model: keras.Model) -> tuple[Any, Ending]:
    """The symbolic tensor of the model's logits, and what the model makes of them.

    Raises:
        CertiflowError: a sigmoid of several outputs, or a softmax of one or along another axis.
    """
    output = model.outputs[0]
    layer, call = made_by(output)
    ending = _ending(layer)
    if ending == "logits":
        return output, ending
    import keras

    check_layer(layer)
    if isinstance(activation := getattr(layer, "activation", None), keras.layers.Layer):
        check_layer(activation)
    check_call(layer, call)
    _check_outputs(layer, output.shape, ending)
    if isinstance(layer, keras.layers.Softmax | keras.layers.Activation):
        return call.input_tensors[0], ending
    return _without_activation(layer)(call.input_tensors[0]), ending


def deciding(model: keras.Model) -> keras.Model:
    """A model of the same decisions that gives logits, one for each class; often the same one.

    Of a sigmoid p these are (0, z), z the logit of p, moved across 0 where z and the decision
    p > 1/2 differ in sign or z is 0: the label is what the model itself decides.
    """
    import keras

    logits, ending = logits_of(model)
    if ending == "logits":
        return model
    if ending == "sigmoid":
        says_one = keras.ops.greater(model.outputs[0], THRESHOLD)
        above, below = keras.ops.maximum(logits, LEAST), keras.ops.minimum(logits, -LEAST)
        decided = keras.ops.where(says_one, above, below)
        logits = keras.ops.concatenate([keras.ops.zeros_like(decided), decided], axis=-1)
    return keras.Model(model.inputs[0], logits, name=model.name)


def _is_rectified(tensor: Any) -> bool:
    """Whether nothing but moves of elements follows a ReLU."""
    import keras

    layer, call = made_by(tensor)
    if isinstance(layer, keras.layers.Flatten | keras.layers.Reshape | keras.layers.Dropout):
        return _is_rectified(call.input_tensors[0])
    activation = getattr(layer, "activation", layer)
    return isinstance(activation, keras.layers.ReLU) or activation is keras.activations.relu


def _ending(layer: keras.layers.Layer) -> Ending:
    """By the function itself: another one may bear its name."""
    import keras

    if not is_of_keras(layer):
        return "logits"
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    match getattr(layer, "activation", None):
        case keras.activations.softmax | keras.layers.Softmax():
            return "softmax"
        case keras.activations.log_softmax:
            return "log_softmax"
        case keras.activations.sigmoid:
            return "sigmoid"
    return "logits"


def _check_outputs(
    layer: keras.layers.Layer, shape: tuple[int | None, ...], ending: Ending
) -> None:
    place = f"the last layer '{layer.name}'"
    if ending == "sigmoid" and shape[1:] != (1,):
        raise CertiflowError(
            f"{place} is a sigmoid of shape {shape[1:]}, a decision for each output by itself: "
            "only that of one output can be verified; end the model with a softmax or with logits"
        )
    axis = _axis(layer)
    if ending != "sigmoid" and (len(shape) != 2 or shape[1] == 1 or axis not in {-1, 1}):
        raise CertiflowError(
            f"{place} is a softmax along axis {axis} of the shape {shape[1:]}: expected one over "
            "two or more classes; end the model with logits"
        )


def _axis(layer: keras.layers.Layer) -> Any:
    activation = getattr(layer, "activation", layer)
    return getattr(activation, "axis", -1)


def _without_activation(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A copy with the same weights."""
    config = layer.get_config() | {"activation": "linear", "name": layer.name + COPY}
    copy = type(layer).from_config(config)
    copy.build(layer.input.shape)
    copy.set_weights(layer.get_weights())
    return copy
