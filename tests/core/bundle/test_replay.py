"""Counterexamples: in the ball, valid, mislabelled by the model, or named with what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.replay import Replay, replayed, replayed_radii, undisturbed
from tasks.core.data.datasets import Dataset
from tasks.core.evidence.metrics import verification_table
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult

# Two pixels; the brighter one is the label.
RUNTIME = NumpyRuntime(
    ReluNetwork((Affine(np.eye(2), np.zeros(2)), Affine(np.eye(2), np.zeros(2))))
)
CLEAN, FLIPPED = [0.6, 0.5], [0.52, 0.55]
EPSILON = 0.1


@pytest.fixture
def data() -> DataDescription:
    images, labels = np.zeros((2, 1, 2), np.float32), np.array([0, 1])
    dataset = Dataset.of_images("two", (images, labels), (images, labels))
    return DataDescription.of(dataset, "two.npz", (7,))


def saved(folder: Path, name: str = "sample_7_eps_0.1", **changed: Any) -> None:
    arrays = {
        "image": np.array([FLIPPED], np.float32),
        "clean": np.array([CLEAN], np.float32),
        "label": 0,
        "predicted": 1,
        "sample_index": 7,
        "epsilon": EPSILON,
    }
    (folder / "counterexamples").mkdir(exist_ok=True)
    path = folder / "counterexamples" / f"{name}.npz"
    np.savez_compressed(path, allow_pickle=False, **(arrays | changed))


def verdicts(decided_by: DecidedBy = DecidedBy.ATTACK) -> pd.DataFrame:
    broken = VerificationResult(7, 0, EPSILON, Verdict.FALSIFIED, decided_by, 0.0, target=1)
    return verification_table([broken])


def of(folder: Path, data: DataDescription) -> Replay:
    (found,) = replayed(folder, verdicts(), data, RUNTIME)
    return found


def test_one_that_holds(data: DataDescription, tmp_path: Path) -> None:
    saved(tmp_path)
    assert of(tmp_path, data) == Replay(7, EPSILON)
    (clean, label) = undisturbed(tmp_path)[7]
    assert (clean.ravel().tolist(), label) == (np.float32(CLEAN).tolist(), 0)


def test_what_breaks_a_ball_breaks_greater_ones(data: DataDescription, tmp_path: Path) -> None:
    saved(tmp_path, "sample_7_eps_0.09", epsilon=0.09)
    saved(tmp_path, "sample_7_eps_0.01", epsilon=0.01, image=np.array([CLEAN], np.float32))
    assert of(tmp_path, data) == Replay(7, EPSILON)
    (tmp_path / "counterexamples/sample_7_eps_0.09.npz").unlink()
    assert "gives it label 0" in of(tmp_path, data).problem


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"image": np.array([CLEAN], np.float32)}, "gives it label 0"),
        ({"image": np.array([[0.4, 0.55]], np.float32)}, "farther than 0.1"),
        ({"image": np.array([[0.52, np.nan]], np.float32)}, "no valid input"),
        ({"image": np.array([FLIPPED])}, "of type float64"),
        ({"image": np.array([[0.52, 0.55, 0.0]], np.float32)}, "3 numbers"),
        ({"clean": np.array([[0.9, 0.5]], np.float32)}, "farther than 0.1"),
        ({"predicted": 0}, "its labels are others"),
        ({"label": 1}, "its labels are others"),
        ({"epsilon": 0.2}, "no counterexample"),
        ({"sample_index": 8}, "no counterexample"),
    ],
)
def test_what_is_none_is_named(
    changed: dict[str, Any], problem: str, data: DataDescription, tmp_path: Path
) -> None:
    saved(tmp_path, **changed)
    found = of(tmp_path, data)
    assert problem in found.problem
    assert not found.is_open


def test_only_rounding_between_two_labels_is_open(data: DataDescription, tmp_path: Path) -> None:
    saved(tmp_path, image=np.array([[0.55, 0.55]], np.float32))
    assert of(tmp_path, data).is_open


def test_a_clean_mistake_is_the_input_itself(data: DataDescription, tmp_path: Path) -> None:
    table, name = verdicts(DecidedBy.CLEAN), "sample_7_misclassified"
    same = np.array([[0.2, 0.4]], np.float32)
    saved(tmp_path, name, image=same, clean=same)
    assert [found.problem for found in replayed(tmp_path, table, data, RUNTIME)] == [""]
    saved(tmp_path, name, clean=same)
    (found,) = replayed(tmp_path, table, data, RUNTIME)
    assert "is not" in found.problem


def test_radii_are_at_the_distance_of_their_inputs(data: DataDescription, tmp_path: Path) -> None:
    saved(tmp_path, "sample_7")
    radii = pd.DataFrame({"sample_index": [7], "label": [0], "falsified": [0.1001]})
    known = {7: (np.array([CLEAN], np.float32), 0)}
    assert [each.problem for each in replayed_radii(tmp_path, radii, data, RUNTIME, known)] == [""]
    (unknown,) = replayed_radii(tmp_path, radii, data, RUNTIME, {})
    assert unknown.is_open
    (near,) = replayed_radii(tmp_path, radii.assign(falsified=0.05), data, RUNTIME, known)
    assert near.problem.startswith("it lies 0.08")
    assert list(replayed_radii(tmp_path, radii.assign(falsified=np.inf), data, RUNTIME, {})) == []
    (missing,) = replayed_radii(tmp_path, radii.assign(sample_index=8), data, RUNTIME, known)
    assert "no counterexample" in missing.problem
