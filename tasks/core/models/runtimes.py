"""Models as they are deployed: what has the last word on every counterexample."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array, Inputs, IntArray
from tasks.core.errors import CertiflowError, first_line
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import ReluNetwork
from tasks.core.readers.onnx_endings import OpenGraph, opened, unopened
from tasks.core.readers.onnx_network import input_shape, only_input, read_graph
from tasks.core.tensors.endings import LEAST, THRESHOLD

if TYPE_CHECKING:
    import keras

# Since 1.29 onnxruntime tells its maker of every process and model, unless it finds this when it is
# imported; its `disable_telemetry_events` comes too late.
WITHOUT_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")


@dataclass(frozen=True, eq=False)
class OnnxRuntime:
    """The model as deployed: onnxruntime on one thread of the CPU, one point at a time.

    Alone in its batch a point's float32 logits cannot depend on the other points.
    """

    path: Path
    whole: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Another process, on whichever machine, makes a session of its own of the same model."""
        return {"path": self.path, "whole": self.whole, "_graph": self._graph}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one point, without a batch axis."""
        shape = self._full_shape
        return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape

    def logits(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs, shape (n, outputs), of points of shape (n, …).

        The model's own outputs if `whole`. Else before a softmax; of a sigmoid p (0, z), z the
        logit of p, moved across 0 where z and the decision p > 1/2 differ in sign or z is 0.
        """
        name = self._session.get_inputs()[0].name
        batches = np.asarray(points, dtype=np.float32).reshape(len(points), *self._full_shape)
        rows = [self._session.run(None, {name: batch}) for batch in batches]
        found = np.array([row[0].ravel() for row in rows], np.float32).reshape(len(points), -1)
        if self._graph.ending != "sigmoid":
            return found
        says_one = np.array([row[1].ravel() for row in rows]).reshape(found.shape) > THRESHOLD
        logit = np.where(says_one, np.maximum(found, LEAST), np.minimum(found, -LEAST))
        return np.concatenate([np.zeros_like(logit), logit], axis=1)

    @cached_property
    def _graph(self) -> OpenGraph:
        graph = read_graph(self.path)
        return unopened(graph) if self.whole else opened(graph)

    @cached_property
    def _full_shape(self) -> tuple[int, ...]:
        return input_shape(only_input(self._graph.model.graph))

    @cached_property
    def _session(self) -> Any:
        os.environ.setdefault(*WITHOUT_TELEMETRY)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the old files' initializers among the inputs are no news
        try:
            return onnxruntime.InferenceSession(
                self._graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise CertiflowError(
                f"{self.path}: onnxruntime cannot run this model: {first_line(error)}"
            ) from error


class Runtime(Protocol):
    """A model as deployed."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one point, without a batch axis."""

    def logits(self, points: Float32Array, /) -> Float32Array:
        """Outputs, shape (n, outputs), of points of shape (n, *input_shape)."""


class Attackable(Runtime, Protocol):
    """A model with what gradient attacks need."""

    def predictions(self, inputs: Inputs, /) -> IntArray:
        """The label with the greatest logit, shape (n,)."""

    def batches(self, count: int, /) -> list[slice]:
        """Slices that cover `count` rows, as many as are computed at a time."""

    @property
    def loss_gradient(self) -> Callable[..., Any]:
        """Gradient of the cross-entropy: (inputs, labels) -> the inputs' shape."""

    @property
    def margin_descent(self) -> Callable[..., Any]:
        """One PGD run on the least margin: (points, labels, lower, upper, step, num_steps).

        The step is that of each input alone, of one point's shape.
        """


@dataclass(frozen=True, eq=False)
class NumpyRuntime:
    """A network evaluated in float32, for file formats that come without a runtime."""

    network: ReluNetwork

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The network's inputs are flat."""
        return (self.network.num_inputs,)

    def logits(self, points: Float32Array) -> Float32Array:
        """Outputs, shape (n, outputs), of points of shape (n, inputs)."""
        x = np.asarray(points, dtype=np.float32).reshape(len(points), -1)
        (matrix, bias), *others = self._layers
        x = matrix.forward(x) + bias
        for (matrix, bias), linear in zip(others, self.network.linear, strict=True):
            x = matrix.forward(np.where(linear, x, np.maximum(x, 0))) + bias
        return x

    @cached_property
    def _layers(self) -> list[tuple[Matrix, Float32Array]]:
        return [
            (layer.matrix.single(), layer.bias.astype(np.float32)) for layer in self.network.layers
        ]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A Keras model from inputs to logits, with the gradients that attacks need."""

    model: keras.Sequential
    batch_size: int = 1000

    def batched(self, batch_size: int) -> Classifier:
        """The same model with the same traced functions, in other batches."""
        other = replace(self, batch_size=batch_size)
        traced = {"_forward", "loss_gradient", "margin_descent"}
        vars(other).update({name: getattr(self, name) for name in traced})
        return other

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.model.input_shape[1:])

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Logits, shape (n, classes), computed batch by batch."""
        parts = [np.asarray(self._forward(inputs[rows])) for rows in self.batches(len(inputs))]
        return np.concatenate(parts)

    def predictions(self, inputs: Inputs) -> IntArray:
        """The label with the greatest logit, shape (n,)."""
        return self.logits(inputs).argmax(axis=1)

    def batches(self, count: int) -> list[slice]:
        """Slices of at most `batch_size` that cover `count` rows."""
        return [slice(start, start + self.batch_size) for start in range(0, count, self.batch_size)]

    @cached_property
    def _input_spec(self) -> Any:
        import tensorflow as tf

        return tf.TensorSpec((None, *self.model.input_shape[1:]), tf.float32)

    @cached_property
    def _forward(self) -> Any:
        import tensorflow as tf

        @tf.function(input_signature=[self._input_spec])
        def forward(inputs: Any) -> Any:
            return self.model(inputs, training=False)

        return forward

    @cached_property
    def loss_gradient(self) -> Any:
        """Gradient of the cross-entropy by the inputs, (inputs, labels) -> inputs' shape."""
        import tensorflow as tf

        @tf.function(input_signature=[self._input_spec, tf.TensorSpec((None,), tf.int64)])
        def gradient(inputs: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                logits = self.model(inputs, training=False)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            return tape.gradient(loss, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        return gradient

    @cached_property
    def margin_descent(self) -> Any:
        """One PGD run on the least margin: (points, labels, lower, upper, step, num_steps).

        The step is that of each input alone, of one point's shape.
        """
        import tensorflow as tf

        points_like = self._input_spec

        def per_input(chosen: Any) -> Any:
            return tf.reshape(chosen, [-1] + [1] * (len(points_like.shape) - 1))

        def least_margin(points: Any, labels: Any) -> Any:
            logits = self.model(points, training=False)
            true = tf.one_hot(
                labels, logits.shape[-1], dtype=tf.bool, on_value=True, off_value=False
            )
            others = tf.reduce_max(tf.where(true, -np.inf, logits), axis=1)
            return tf.reduce_max(tf.where(true, logits, -np.inf), axis=1) - others

        @tf.function(
            input_signature=[
                points_like,
                tf.TensorSpec((None,), tf.int64),
                points_like,
                points_like,
                tf.TensorSpec(points_like.shape[1:], tf.float32),
                tf.TensorSpec((), tf.int32),
            ]
        )
        def descend(
            points: Any, labels: Any, lower: Any, upper: Any, step: Any, num_steps: Any
        ) -> Any:
            best, best_margin = points, tf.fill(tf.shape(labels), np.float32(np.inf))
            for _ in tf.range(num_steps):
                with tf.GradientTape() as tape:
                    tape.watch(points)
                    margin = least_margin(points, labels)
                gradient = tape.gradient(
                    margin, points, unconnected_gradients=tf.UnconnectedGradients.ZERO
                )
                best = tf.where(per_input(margin < best_margin), points, best)
                best_margin = tf.minimum(margin, best_margin)
                points = tf.clip_by_value(points - step * tf.sign(gradient), lower, upper)
            ahead = least_margin(points, labels) < best_margin
            return tf.where(per_input(ahead), points, best)

        return descend
