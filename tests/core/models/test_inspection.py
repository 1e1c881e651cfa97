"""What a model file says of its ends, held against the model that Keras makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tasks.core.data.datasets import Dataset, Extent
from tasks.core.errors import CertiflowError
from tasks.core.models.inspection import Ends, check_fit, ends
from tasks.core.models.runtimes import Classifier
from tasks.core.sources import catalogue
from tasks.core.sources.download import fetch
from tests.command import ROOT


def test_of_a_sequential_model(classifier: Classifier, tmp_path: Path) -> None:
    classifier.model.save(tmp_path / "m.keras")
    assert ends(tmp_path / "m.keras") == Ends(64, 10)


def test_outputs_of_a_functional_model_are_left_to_keras(tmp_path: Path) -> None:
    first = keras.Input((3, 2))
    flat = keras.layers.Flatten()(first)
    keras.Model(first, keras.layers.Dense(4)(flat)).save(tmp_path / "m.keras")
    assert ends(tmp_path / "m.keras") == Ends(6, None)


def test_inputs_of_any_length_are_left_to_keras(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    assert ends(tmp_path / "m.keras").inputs is None


def test_needs_no_keras(classifier: Classifier, tmp_path: Path) -> None:
    classifier.model.save(tmp_path / "m.keras")
    code = (
        "import sys; from pathlib import Path; from tasks.core.models.inspection import ends; "
        "print(ends(Path(sys.argv[1])).inputs, 'keras' in sys.modules, 'tensorflow' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.keras"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "64 False False\n"


def test_what_does_not_fit_is_refused_and_what_is_unknown_passes(digits: Dataset) -> None:
    check_fit(Ends(64, 10), "digits", digits.extent)
    check_fit(Ends(None, None), "digits", digits.extent)
    for wrong in (Ends(63, 10), Ends(64, 9), Ends(None, 9), Ends(63, None)):
        with pytest.raises(CertiflowError, match="digits needs 64 and 10"):
            check_fit(wrong, "digits", digits.extent)


def test_one_sigmoid_decides_between_two(tmp_path: Path) -> None:
    for activation, outputs in (("sigmoid", 2), ("linear", 1)):
        dense = keras.layers.Dense(1, activation=activation)
        keras.Sequential([keras.Input((3,)), dense]).save(tmp_path / "m.keras")
        assert ends(tmp_path / "m.keras") == Ends(3, outputs)


def test_one_linear_output_is_no_classifier(digits: Dataset) -> None:
    with pytest.raises(CertiflowError, match="no decision between classes: end it with a sigmoid"):
        check_fit(Ends(64, 1), "digits", digits.extent)


def test_extent_of_the_digits_is_what_their_files_hold(digits: Dataset) -> None:
    assert catalogue.SOURCES["digits"].extent == digits.extent == Extent((8, 8), 10, 360)


def test_extent_of_mnist_is_what_its_files_hold(mnist_mirror: str, tmp_path: Path) -> None:
    fetch("mnist", tmp_path)
    assert catalogue.SOURCES["mnist"].extent == catalogue.load("mnist", tmp_path).extent
