"""Counterexamples played again: each in its ball, valid, and given another label by the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array
from tasks.core.bundle.described import DataDescription
from tasks.core.models.runtimes import Runtime
from tasks.core.sources.npz import read_arrays
from tasks.core.verdicts import DecidedBy, Verdict

FOLDER = "counterexamples"
NAME = re.compile(r"sample_\d+_(misclassified|eps_[\d.]+)\.npz")
RADIUS_ARRAYS = ("image", "label", "epsilon")
ARRAYS = ("image", "clean", "label", "predicted", "sample_index", "epsilon")
NEAR = 1e-5  # of the greatest logit: nearer than that, float32 sums in another order may differ


@dataclass(frozen=True)
class Replay:
    """One broken ball, and what came of its counterexample.

    Attributes:
        problem: why it is none; '' where it is one.
        is_open: whether only rounding keeps it from being one: the two labels are too near.
    """

    sample_index: int
    epsilon: float
    problem: str = ""
    is_open: bool = False


def replayed(
    folder: Path, verdicts: pd.DataFrame, data: DataDescription, runtime: Runtime
) -> Iterator[Replay]:
    """Every ball that the table of verdicts says is broken, against the model in `runtime`."""
    balls, clean = _stored(folder)
    perturbation = data.perturbation
    for row in verdicts[verdicts["verdict"] == Verdict.FALSIFIED.value].to_dict("records"):
        index, epsilon = int(row["sample_index"]), float(row["epsilon"])
        is_clean = row["decided_by"] == DecidedBy.CLEAN.value
        found = clean.get(index) if is_clean else _nearest(balls.get(index, {}), epsilon)
        if found is None:
            yield Replay(index, epsilon, "no counterexample is there")
            continue
        point = np.asarray(found["image"])
        before = np.asarray(found["clean"]).reshape(1, -1)
        labels = int(row["label"]), int(row["target"])
        if (int(found["label"]), int(found["predicted"])) != labels:
            problem = "its labels are others than the table's"
        elif point.dtype != np.float32 or point.size != perturbation.domain.num_inputs:
            problem = f"it is {point.size} numbers of type {point.dtype}, no input of the model"
        elif is_clean and not np.array_equal(point.ravel(), before.ravel()):
            problem = "it is said to be the undisturbed input, and is not"
        elif not is_clean and not perturbation.domain.contains(point.reshape(1, -1)).all():
            problem = "it is no valid input"
        elif not is_clean and not _is_inside(data, before, point, epsilon):
            problem = f"it lies farther than {epsilon:g} from the undisturbed input"
        else:
            yield _judged(runtime, point, labels, Replay(index, epsilon))
            continue
        yield Replay(index, epsilon, problem)


def replayed_radii(
    folder: Path,
    radii: pd.DataFrame,
    data: DataDescription,
    runtime: Runtime,
    inputs: Mapping[int, tuple[Any, int]],
) -> Iterator[Replay]:
    """Every critical radius that a stored input bounds, at the distance that it is said to have.

    `inputs` has undisturbed inputs, with their labels, by index; distances of others are not known:
    such a replay says so, and is open.
    """
    perturbation = data.perturbation
    broken = radii[np.isfinite(radii["falsified"]) & (radii["falsified"] > 0)]
    for row in broken.to_dict("records"):
        index, radius, label = int(row["sample_index"]), float(row["falsified"]), int(row["label"])
        path, ball = folder / FOLDER / f"sample_{index}.npz", Replay(index, radius)
        if not path.is_file():
            yield replace(ball, problem="no counterexample is there")
            continue
        point = np.asarray(read_arrays(path, RADIUS_ARRAYS)["image"], dtype=np.float32)
        given = int(runtime.logits(point.reshape(1, *runtime.input_shape))[0].argmax())
        known = inputs.get(index)
        if given == label:
            yield replace(ball, problem=f"the model keeps the label {label}")
        elif not perturbation.domain.contains(point.reshape(1, -1)).all():
            yield replace(ball, problem="it is no valid input")
        elif known is None:
            yield replace(ball, problem="its distance is not known without the data", is_open=True)
        else:
            far = perturbation.distance(known[0], point.reshape(1, -1).astype(np.float64))[0]
            wrong = f"it lies {far:.9g} away" if far > radius else ""
            yield replace(ball, problem=wrong)


def undisturbed(folder: Path) -> dict[int, tuple[NDArray[Any], int]]:
    """The inputs and labels that the counterexamples say they are of, by place in the test set."""
    balls, clean = _stored(folder)
    every = {index: next(iter(found.values())) for index, found in balls.items()} | clean
    return {i: (np.asarray(each["clean"]), int(each["label"])) for i, each in every.items()}


def _judged(runtime: Runtime, point: NDArray[Any], labels: tuple[int, int], ball: Replay) -> Replay:
    logits = runtime.logits(point.reshape(1, *runtime.input_shape))[0].astype(np.float64)
    given, (label, target) = int(logits.argmax()), labels
    if given == target != label:
        return ball
    near = float(logits.max() - logits[target]) <= NEAR * max(float(np.abs(logits).max()), 1.0)
    problem = f"the model gives it label {given}, said to be {target}"
    return Replay(ball.sample_index, ball.epsilon, problem, is_open=near and target != label)


def _is_inside(
    data: DataDescription, before: Float32Array, point: Float32Array, epsilon: float
) -> bool:
    """Whether it is in one of the boxes around the undisturbed input, compared in float64."""
    boxes, _ = data.perturbation.boxes(before, epsilon)
    flat = point.reshape(1, -1).astype(np.float64)
    return bool(((flat >= boxes.lower) & (flat <= boxes.upper)).all(axis=1).any())


def _nearest(of_point: Mapping[float, dict[str, Any]], epsilon: float) -> dict[str, Any] | None:
    """That of the radius, or of the next smaller one: what breaks a ball breaks greater ones."""
    radius = max((each for each in of_point if each <= epsilon), default=None)
    return None if radius is None else of_point[radius]


def _stored(
    folder: Path,
) -> tuple[dict[int, dict[float, dict[str, Any]]], dict[int, dict[str, Any]]]:
    """Counterexamples by sample, then radius, and misclassified inputs by sample.

    Files of other questions, such as pairs of rows and critical radii, have other names.
    """
    balls, clean = dict[int, dict[float, dict[str, Any]]](), dict[int, dict[str, Any]]()
    for path in sorted((folder / FOLDER).glob("*.npz")):
        kind = NAME.fullmatch(path.name)
        if kind is None:
            continue
        found = read_arrays(path, ARRAYS)
        index = int(found["sample_index"])
        if kind[1] == "misclassified":
            clean[index] = found
        else:
            balls.setdefault(index, {})[float(found["epsilon"])] = found
    return balls, clean
