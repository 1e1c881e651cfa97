"""Mends of the product, each with the patch that takes it back: the laboratory must notice.

`python -m tests.soundness --without NAME` applies the patch in every process that answers, and
looks for a wrong answer. A patch is a function of no arguments that changes modules of the product.
What a reader misunderstands is caught when the model is held against its runtime, so the patches of
the readers take that check back as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tasks.core.arrays import BoolArray
from tasks.core.bounds.precision import DOUBLE, SINGLE
from tasks.core.bounds.rounding import Magnitudes, gamma
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.linear_relations import Written
from tasks.core.properties.specification import Property
from tasks.core.search import ladder, marabou
from tasks.core.search.answer import Answer
from tasks.core.verdicts import WITNESSED_ONLY, Verdict
from tasks.core.verification.balls import Ball, LadderSolver


def marabou_unsat_is_a_proof() -> None:
    """What Marabou calls `unsat` is proved, as if it computed exactly."""
    decided = marabou._decide_region

    def believed(*question: Any) -> Any:
        answer = decided(*question)
        if answer.reason != WITNESSED_ONLY:
            return answer
        return replace(answer, verdict=Verdict.ROBUST, reason="", margin=1e-300)

    marabou._decide_region = believed


def constant_rows() -> None:
    """Rows that do not vary are asked and scaled like the others, and `unsat` is believed."""
    marabou_unsat_is_a_proof()
    question: Any = marabou._Question
    varying = question.varying.fget

    def all_or_none(self: Any) -> BoolArray:
        rows = varying(self)
        return np.full(len(rows), rows.any())

    question.varying = property(all_or_none)
    question.span = property(
        lambda self: np.maximum(self.upper - self.lower, np.finfo(np.float64).tiny)
    )


def overflow() -> None:
    """Numbers of any size are believed."""
    for held in (DOUBLE, SINGLE):
        object.__setattr__(held, "huge", np.inf)
    _everywhere("HUGE", np.inf)


def underflow() -> None:
    """Rounding errors are relative at any size."""
    for held in (DOUBLE, SINGLE):
        object.__setattr__(held, "underflow", 0.0)
        object.__setattr__(held, "tiny", 0.0)
    _everywhere("UNDERFLOW", 0.0)


def carried_bounds() -> None:
    """Of the classes that bounds proved, it is handed on that they did and not by how much."""

    def call(self: LadderSolver, ball: Ball) -> Answer:
        whole = ball.robustness(self.network.num_outputs)
        known = np.full(len(whole.unsafe), -np.inf) if ball.known is None else ball.known.lower
        left = np.flatnonzero(~(known > 0))
        answer = ladder.decide(
            self.network,
            Property(tuple(whole.unsafe[index] for index in left)),
            engine=self.engine,
            timeout_seconds=self.timeout_seconds,
            seed=self.seed,
        )
        return replace(answer, region=None if answer.region is None else int(left[answer.region]))

    LadderSolver.__call__ = call


def onnx_attributes() -> None:
    """What no reader asks of a node is ignored, in every opset."""
    from tasks.core.readers import onnx_network
    from tasks.core.readers.onnx_node import Node

    Node.unread = lambda self: {}
    Node.check = lambda self: None
    onnx_network._OPSETS = range(1, 100)
    _without_load_check()


def keras_types() -> None:
    """Layers and activations are what they are called, and inputs what they look like."""
    from tasks.core.readers import keras_network

    _everywhere("is_of_keras", lambda thing: True)
    _everywhere("check_layer", lambda layer: None)
    _everywhere("check_call", lambda layer, call: None)
    keras_network._Lowered._activated = lambda self, layer, tensor: (
        self.lowering.relu(tensor) if layer.activation.__name__ == "relu" else tensor
    )
    _without_load_check()


def vnnlib_rationals() -> None:
    """Sums and products of a property are those of float64."""
    from tasks.core.properties import linear_relations

    linear_relations._exact = lambda number: float(
        number.nearest if isinstance(number, Written) else number
    )
    linear_relations._bits = lambda number: 0


def deployed_error() -> None:
    """Every proof is said to hold for the float32 model."""
    _everywhere("row_error", lambda network, rows, hidden, ball: np.zeros(rows.shape[-2])[None])


def rounding_errors() -> None:
    """Bounds without what rounding may have added to them."""
    _everywhere("gamma", lambda terms: 0.0)


def single_rounding_errors() -> None:
    """The same of what float32 may have added."""
    _everywhere("single_gamma", lambda roundings: 0.0)


def one_running_sum() -> None:
    """The constants of all layers are said to pass through two sums a layer."""

    def few(self: Magnitudes, terms: int) -> float:
        return gamma(terms + 2 * len(self.affine) + 8)

    Magnitudes._gamma = few


def exact_folding() -> None:
    """What steps made of weights in float64 is said to be exact."""

    def own(self: ReluNetwork, depth: int) -> tuple[Affine, int]:
        return self.layers[depth].absolute, 0

    ReluNetwork.sums = own


def _without_load_check() -> None:
    _everywhere("check_agreement", lambda network, runtime, points: None)


def _everywhere(name: str, value: Any) -> None:
    """Replaces what every module of the product that is loaded knows by this name."""
    for module in [m for key, m in sys.modules.items() if key.startswith("tasks.")]:
        if hasattr(module, name):
            setattr(module, name, value)


MENDS: dict[str, Callable[[], None]] = {
    patch.__name__: patch
    for patch in (
        marabou_unsat_is_a_proof,
        constant_rows,
        overflow,
        underflow,
        carried_bounds,
        onnx_attributes,
        keras_types,
        vnnlib_rationals,
        deployed_error,
        rounding_errors,
        single_rounding_errors,
        one_running_sum,
        exact_folding,
    )
}
