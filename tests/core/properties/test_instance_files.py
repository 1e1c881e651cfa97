"""A folder of VNN-COMP is read and answered by our own command as what was written."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from flows.actions.verify_command import read_instances
from tasks.core.errors import CertiflowError
from tasks.core.models.onnx_export import exported
from tasks.core.properties.instance_files import Question, instance_files, write_instances
from tasks.core.properties.specification import Property
from tasks.core.queries.input_files import InputFile
from tasks.core.queries.property_solver import PropertyJob, PropertySolver
from tests.networks import ball_around

EPSILON = 0.1


def ascending() -> keras.Model:
    """Three logits x, 2x and 4x - 1 of one input in [0, 1]; 2x = 4x - 1 at 1/2."""
    hidden = layers.Dense(1, "relu", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), hidden, layers.Dense(3)])
    model.layers[1].set_weights([np.array([[1.0, 2.0, 4.0]]), np.array([0.0, 0.0, -1.0])])
    return model


def ball(center: float, label: int) -> Property:
    return Property.robustness(ball_around([[center]], EPSILON), label, 3)


def test_what_is_written_is_read_and_answered(tmp_path: Path) -> None:
    content = exported(ascending()).SerializeToString()
    questions: list[Question] = [
        ("0@0.1", ball(0.7, 2), 20),
        ("1@0.1", ball(0.55, 2), 0.5),
        ("2@0.1", ball(0.3, 1), 1e6),
    ]
    listed = write_instances(tmp_path / "folder", content, questions, 3, name="ascending")
    rows = read_instances(listed)
    assert rows == [
        ("onnx/ascending.onnx", "vnnlib/0@0.1.vnnlib", 20.0),
        ("onnx/ascending.onnx", "vnnlib/1@0.1.vnnlib", 0.5),
        ("onnx/ascending.onnx", "vnnlib/2@0.1.vnnlib", 1e6),
    ]
    assert listed.read_text().startswith("onnx/ascending.onnx,vnnlib/0@0.1.vnnlib,20\n")
    files = {str(path.relative_to(listed.parent)) for path in listed.parent.rglob("*.*")}
    assert files == {"instances.csv", *(name for row in rows for name in row[:2])}
    assert (listed.parent / rows[0][0]).read_bytes() == content

    solver = PropertySolver("ladder", 0, {})
    verdicts = []
    for number, (network, prop, _) in enumerate(rows):
        paths = (InputFile.of(listed.parent / name) for name in (network, prop))
        job = PropertyJob(number, *paths, 20)
        solver.prepare(job)
        verdicts.append(solver(job).verdict)
    assert verdicts == ["unsat", "sat", "unsat"]


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([("../a", ball(0.5, 1), 1)], r"'\.\./a' cannot name a file"),
        ([("a,b", ball(0.5, 1), 1)], "'a,b' cannot name a file"),
        ([("a", ball(0.5, 1), 1), ("a", ball(0.6, 1), 1)], "the question 'a' stands twice"),
        ([("a", ball(0.5, 1), 0)], "'a' has a time limit of 0"),
    ],
)
def test_questions_that_are_no_files_are_refused(questions: list[Question], message: str) -> None:
    with pytest.raises(CertiflowError, match=message):
        instance_files(b"", questions, 3)
