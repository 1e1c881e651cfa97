"""A bundle's decided balls as a folder of VNN-COMP, which any other verifier can be asked."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.statement import ONNX
from tasks.core.errors import CertiflowError
from tasks.core.files import output_file
from tasks.core.models import loading
from tasks.core.properties.instance_files import write_instances
from tasks.core.properties.specification import Property
from tasks.core.verdicts import DecidedBy, Verdict
from tasks.settings import decimal

EXPECTED = {Verdict.ROBUST.value: "unsat", Verdict.FALSIFIED.value: "sat"}
ANSWERS = "expected.csv"  # beside the list of instances: what the bundle says of each
SECONDS = 60.0  # that another verifier is given for each


def write(
    target: Path,
    folder: Path,
    verdicts: pd.DataFrame,
    data: DataDescription,
    inputs: Mapping[int, tuple[Any, int]],
) -> int:
    """Writes the network, a property for each ball, and the answers; how many balls there are.

    Proofs and counterexamples of `inputs`, (input, label) by index; clean mistakes need no search.

    Raises:
        CertiflowError: VNN-LIB cannot say what was asked, or the network does not end with logits;
            `target` cannot be written.
    """
    loaded = loading.load(folder / ONNX)
    if loaded.ending != "logits" or data.tolerance is not None:
        raise CertiflowError(
            f"the model ends with {loaded.ending}: VNN-LIB compares logits; export a model of them"
        )
    outputs, perturbation = loaded.network.num_outputs, data.perturbation
    decided = verdicts[verdicts["verdict"].isin(list(EXPECTED))]
    questions, answers = [], []
    for row in decided[decided["decided_by"] != DecidedBy.CLEAN.value].to_dict("records"):
        index, epsilon = int(row["sample_index"]), float(row["epsilon"])
        if index not in inputs:
            continue
        center, label = inputs[index]
        boxes, _ = perturbation.boxes(np.asarray(center)[None], epsilon)
        name = f"{index}@{decimal(epsilon)}"
        prop = Property.robustness(boxes, label, outputs, perturbation.domain)
        questions.append((name, prop, SECONDS))
        answers.append((f"vnnlib/{name}.vnnlib", EXPECTED[row["verdict"]]))
    network = (folder / ONNX).read_bytes()
    with output_file(target / ANSWERS) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(answers)
    write_instances(target, network, questions, outputs)
    return len(questions)
