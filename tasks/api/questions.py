"""Questions about one input or property, answered in this process.

No process is started, so Marabou, which keeps no time limit, is not asked: `certiflow verify` does.
All else of the ladder is: attacks, bounds, both searches, within the time given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tasks.api.models import Model, load
from tasks.api.properties import Robustness, between, box, checked_rows, finite
from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.bounds.linear import (
    Method,
    interval_lower_bounds,
    linear_lower_bounds,
    preactivation_bounds,
)
from tasks.core.errors import CertiflowError
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.box import Box
from tasks.core.properties.domain import GREATEST, Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.query import Query
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.properties.vnnlib import read_property
from tasks.core.queries.property_solver import VERDICTS, Asked, believed, check_ending
from tasks.core.search.ladder import warm_up
from tasks.core.verdicts import DecidedBy, Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.critical_radius import radius_here
from tasks.core.verification.radius_search import RadiusGoal

OwnEngine = Literal["ladder", "bounds"]


@dataclass(frozen=True, eq=False)
class Verified:
    """What is known of a property.

    Attributes:
        verdict: `robust`: it holds, proved of the network over the reals; `falsified`: the deployed
            float32 model breaks it at `counterexample`; `unknown` or `timeout`: neither.
        decided_by: the stage that gave the verdict, or the last one that tried; None where the
            property's own bounds leave no input.
        margin: with `robust`, a proved lower bound on how far the outputs keep from what is unsafe;
            of `Robustness` the least lead of the label.
        counterexample: a point of the box, of the model's input shape; with `falsified`. The model
            was given the float32 numbers nearest to it.
        outputs: what it gave then, as the file has them: probabilities after a softmax.
        deployed: with `robust`, whether it also holds for the float32 model, in any order of sums.
        reason: why there is no other verdict.
        seconds: wall clock, the replay of the counterexample included.
    """

    verdict: Verdict
    decided_by: DecidedBy | None
    margin: float | None
    counterexample: FloatArray | None
    outputs: FloatArray | None
    deployed: bool | None
    reason: str
    seconds: float

    @property
    def holds(self) -> bool | None:
        """Whether the property holds; None where that stays open."""
        return {Verdict.ROBUST: True, Verdict.FALSIFIED: False}.get(self.verdict)


@dataclass(frozen=True, eq=False)
class Radius:
    """Where the radius lies at which an input loses its label.

    Attributes:
        proved: at every epsilon up to this one all inputs keep the label, proved over the reals.
        falsified: the distance of `counterexample`, rounded up; infinite when none was found, 0 for
            an input that the model gives another label undisturbed.
        counterexample: float32, mislabelled by the deployed model; None when none was found.
        complete: whether the bracket is as narrow as asked, or all up to `max_epsilon` is proved.
        reason: why it is not.
    """

    label: int
    proved: float
    falsified: float
    proved_by: DecidedBy
    counterexample: Float32Array | None
    complete: bool
    reason: str
    seconds: float


@dataclass(frozen=True, eq=False)
class OutputBounds:
    """Sound bounds on every output, (outputs,) or (batch, outputs), over the reals."""

    lower: FloatArray
    upper: FloatArray

    @property
    def widths(self) -> FloatArray:
        """How far apart they are."""
        return self.upper - self.lower


def verify(
    model: Model,
    prop: Property | Robustness | str | Path,
    *,
    timeout_seconds: float = 60.0,
    engine: OwnEngine = "ladder",
    seed: int = 0,
) -> Verified:
    """Whether a property holds of a model; `prop` may be the path of a VNN-LIB file.

    The engine `ladder` is sound, and complete but for time and for points near the boundary;
    `bounds` does without a search. `seed` is that of the attacks' starts.

    Raises:
        CertiflowError: the model or the file cannot be read; the property is of other inputs or
            outputs than the model's; the time limit is not above 0.
    """
    _check_seconds(timeout_seconds)
    loaded = load(model)
    query = Query.of_one(_property(loaded, prop), loaded.network.num_inputs)
    check_ending("the model", loaded, query)
    asked, told = Asked([loaded], query), query.prop.contradiction
    asked.check("the model")
    warm_up()
    started = monotonic()
    if told:  # no input is asked about
        return Verified(Verdict.ROBUST, None, None, None, None, True, told, 0.0)
    result = believed(asked, asked.decided(engine, timeout_seconds, seed, with_marabou=False))
    point = result.counterexample
    return Verified(
        verdict=VERDICTS[result.verdict],
        decided_by=result.decided_by,
        margin=result.margin,
        counterexample=None if point is None else np.reshape(point["X"], loaded.input_shape),
        outputs=None if point is None else np.array(point["Y"]),
        deployed=result.deployed,
        reason=result.reason,
        seconds=monotonic() - started,
    )


def radius(
    model: Model,
    x: ArrayLike,
    label: int | None = None,
    *,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
    max_epsilon: float = 0.3,
    tolerance: float = 0.001,
    timeout_seconds: float = 20.0,
    seed: int = 0,
) -> Radius:
    """How far `x`, of the model's input shape, may move (L-infinity) before it loses its label.

    `label` None is the model's own. Inputs stay between `lower` and `upper`, single numbers or
    arrays of the input's shape. `max_epsilon` is at most 1, in the inputs' units. `x` and both
    bounds are taken as the nearest float32 numbers, which models are given: proved is what is
    between these.

    Raises:
        CertiflowError: as `load`; another shape, an input out of bounds, a label that is no output,
            a tolerance or radius out of range.
        ContradictionError: a defect of certiflow.
    """
    _check_seconds(timeout_seconds)
    loaded = load(model)
    center = _shaped(loaded, finite(x, "x"))
    given = int(loaded.runtime.logits(center[None])[0].argmax()) if label is None else label
    Robustness(box(center, center), given).of(loaded.network.num_outputs)
    least, most = between(center.astype(np.float64), lower, upper)
    perturbation = _perturbation(loaded, least, most)
    goal = RadiusGoal(max_epsilon, tolerance, timeout_seconds, "ladder", seed)
    sample = Sample(np.zeros(1, np.int64), center[None], np.array([given]), perturbation)
    found = radius_here(loaded.runtime, loaded.network, sample, goal)
    return Radius(
        label=given,
        proved=found.proved,
        falsified=found.falsified,
        proved_by=found.proved_by,
        counterexample=found.counterexample,
        complete=found.complete,
        reason=found.reason,
        seconds=found.seconds,
    )


def bounds(
    model: Model, lower: ArrayLike, upper: ArrayLike, *, method: Method = "crown"
) -> OutputBounds:
    """Bounds on the outputs over the inputs between two arrays, of one input's shape or a batch's.

    `interval` propagates boxes (Gowal et al. 2018); `crown` bounds backwards as well (Zhang et al.
    2018), and is never looser.

    Raises:
        CertiflowError: as `load`; other shapes, numbers that are not finite, a lower one above its
            upper one, another method.
    """
    if method not in ("interval", "crown"):
        raise CertiflowError(f"the method is '{method}': expected interval or crown")
    loaded, low = load(model), finite(lower, "lower")
    boxes, network = _boxes(loaded, low, finite(upper, "upper")), loaded.network
    both = np.concatenate([np.eye(network.num_outputs), -np.eye(network.num_outputs)])
    hidden = preactivation_bounds(network, boxes, method)
    if method == "interval":
        found = interval_lower_bounds(network, both, hidden, boxes)
    else:
        found = linear_lower_bounds(network, len(network.layers) - 1, both, hidden, boxes)
    if low.shape in (loaded.input_shape, (network.num_inputs,)):
        found = found[0]
    least, negated = np.split(found, 2, axis=-1)
    return OutputBounds(least, -negated)


def _property(model: LoadedModel, prop: Property | Robustness | str | Path) -> Property:
    match prop:
        case Robustness():
            found = prop.of(model.network.num_outputs)
        case Property():
            found = prop
        case str() | Path():
            return read_property(Path(prop), model.network.num_inputs, model.network.num_outputs)
        case _:
            raise CertiflowError(
                f"the property is of type {type(prop).__name__}: expected a Robustness, a Property "
                "or the path of a VNN-LIB file"
            )
    if not found.unsafe or found.domain is not None:
        raise CertiflowError(
            "the property has no unsafe region, or a domain of its own: make it of boxes with "
            "Robustness, unreachable or always_positive, or of their regions"
        )
    regions = tuple(_region(model, region) for region in found.unsafe)
    if len({region.rows.shape[1] for region in regions}) > 1:
        raise CertiflowError(
            "some of the property's regions are of outputs, others of outputs and inputs: give all "
            "rows as many columns, with zeros for the inputs"
        )
    return Property(regions)


def _region(model: LoadedModel, region: UnsafeRegion) -> UnsafeRegion:
    """As it is asked of the model: whoever made it may have mistaken shapes."""
    inputs, outputs = model.network.num_inputs, model.network.num_outputs
    rows, offsets = checked_rows(region.rows, region.offsets)
    if type(region.box) is not Box or region.box.lower.size != inputs:
        raise CertiflowError(
            f"the property is about a {type(region.box).__name__} of {region.box.lower.size} "
            f"inputs: expected a Box of {inputs}, as many as the model has"
        )
    if rows.shape[1] not in (outputs, outputs + inputs):
        raise CertiflowError(
            f"the property's rows have {rows.shape[1]} columns: expected {outputs}, the model's "
            f"outputs, or {outputs + inputs}, outputs and inputs"
        )
    return UnsafeRegion(box(region.box.lower, region.box.upper), rows, offsets)


def _boxes(model: LoadedModel, lower: FloatArray, upper: FloatArray) -> Box:
    """Boxes of the model's inputs, (batch, inputs)."""
    size, shape = model.network.num_inputs, model.input_shape
    fitting = {shape, (size,), lower.shape[:1] + shape, (*lower.shape[:1], size)}
    if lower.shape != upper.shape or lower.shape not in fitting:
        raise CertiflowError(
            f"lower has shape {lower.shape} and upper {upper.shape}: expected {shape}, the shape "
            "of the model's inputs, or a batch of them"
        )
    low, high = (each.reshape(-1, size).astype(np.float64) for each in (lower, upper))
    if not (low <= high).all():
        raise CertiflowError("a number of lower is above that of upper: exchange them")
    return Box(low, high)


def _shaped(model: LoadedModel, x: FloatArray) -> Float32Array:
    if x.shape not in (model.input_shape, (model.network.num_inputs,)):
        raise CertiflowError(
            f"x has shape {x.shape}: expected {model.input_shape}, that of the model's inputs"
        )
    return x.astype(np.float32).reshape(model.input_shape)


def _perturbation(model: LoadedModel, lower: FloatArray, upper: FloatArray) -> Perturbation:
    """Every input by epsilon, between bounds; raises `CertiflowError` where these are too far."""
    if max(np.abs(lower).max(), np.abs(upper).max()) > GREATEST:
        raise CertiflowError(
            f"lower and upper reach beyond {GREATEST:.0g}: choose greater units, since models take "
            "float32 numbers"
        )
    if not lower.any() and (upper == 1).all():
        return Perturbation.of_images(model.input_shape)
    features = [
        Feature(name=f"x{place}", lower=least, upper=most)
        for place, (least, most) in enumerate(zip(lower.flat, upper.flat, strict=True))
    ]
    domain, ones = Domain(model.input_shape, tuple(features)), np.ones(lower.size)
    return Perturbation(domain, ones, ones, ones)


def _check_seconds(timeout_seconds: float) -> None:
    if not 0 < timeout_seconds < np.inf:
        raise CertiflowError(f"the time limit is {timeout_seconds:g} s: expected more than 0")
