"""A bundle's certificates, through the independent checker, beside its table of verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.certificates import FOLDER
from tasks.checker.certificate import read_certificate
from tasks.checker.check import check
from tasks.checker.refused import RefusedError
from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.findings import CertifiedRow, Findings
from tasks.core.bundle.statement import ONNX
from tasks.core.evidence import metrics
from tasks.core.verdicts import CHECKED, Verdict

Ball = tuple[int, float]


@dataclass(frozen=True)
class Checked:
    """What came of one ball's certificate."""

    proved: bool
    deployed: bool
    reason: str


def checked(folder: Path, findings: Findings) -> dict[Ball, Checked]:
    """Every certificate of the bundle against its network; a file that is damaged is a finding."""
    found = dict[Ball, Checked]()
    for path in sorted((folder / FOLDER).glob("*.npz")):
        try:
            results = check(path, folder / ONNX)
        except RefusedError as error:
            findings.add("certificates", path.name, "a certificate", str(error), same=False)
            continue
        for result in results:
            index, _, epsilon = result.name.partition("@")
            ball = int(index), float(epsilon)
            found[ball] = Checked(result.proved, result.deployed, result.reason)
    return found


def rows(
    verdicts: pd.DataFrame, found: Mapping[Ball, Checked], findings: Findings
) -> tuple[CertifiedRow, ...]:
    """Proofs by what shows them, a row for each radius; a certificate must show what it is of."""
    shown = []
    witnessed = metrics.is_witnessed_only(verdicts)
    for epsilon, part in verdicts.groupby("epsilon"):
        robust = part[part["verdict"] == Verdict.ROBUST.value]
        balls = [found.get((int(index), float(epsilon))) for index in robust["sample_index"]]
        there = [each for each in balls if each is not None]
        refused = [each for each in there if not each.proved]
        shown.append(
            CertifiedRow(
                epsilon=float(epsilon),
                robust=len(robust),
                certified=len(there) - len(refused),
                deployed=sum(each.proved and each.deployed for each in there),
                refused=len(refused),
                without=len(balls) - len(there),
                witnessed=int(witnessed[part.index].sum()),
            )
        )
        said = int((part["certificate"] == CHECKED).sum()) if "certificate" in part else 0
        if there or said:
            shown_by = len(there) - len(refused)
            why = f"; {refused[0].reason}" if refused else ""
            findings.add(
                "certificates",
                f"proofs at epsilon {epsilon:g}",
                f"{said} checked",
                f"{shown_by} checked{why}",
                same=shown_by >= said and not refused,
            )
        if found and len(there) < len(balls):
            findings.skip(
                f"{len(balls) - len(there)} of {len(balls)} proofs at epsilon {epsilon:g}",
                "no certificate: the table's word stands alone",
            )
    if not found and (verdicts["verdict"] == Verdict.ROBUST.value).any():
        findings.skip(
            "proofs", "no certificates in the evidence: set verification.certificates: true"
        )
    return tuple(shown)


def check_questions(
    folder: Path,
    data: DataDescription,
    inputs: Mapping[int, tuple[Any, int]],
    findings: Findings,
) -> None:
    """Holds what certificates speak of against the balls around `inputs`: (input, label) by index.

    A certificate proves what its own boxes say; whose balls these are follows from the data alone.
    """
    paths = sorted((folder / FOLDER).glob("*.npz"))
    if not paths:
        return
    wrong, right, unknown = list[str](), 0, 0
    for path in paths:
        header, arrays = read_certificate(path)
        owners = np.asarray(arrays["box_question"])
        for question, name in enumerate(header["names"]):
            index, _, epsilon = name.partition("@")
            known = inputs.get(int(index))
            if known is None:
                unknown += 1
                continue
            mine = owners == question
            boxes, _ = data.perturbation.boxes(np.asarray(known[0])[None], float(epsilon))
            lower, upper = arrays["box_lower"][mine], arrays["box_upper"][mine]
            covered = [
                ((lower <= low) & (upper >= high)).all(axis=1).any()
                for low, high in zip(boxes.lower, boxes.upper, strict=True)
            ]
            if all(covered) and int(arrays["question_label"][question]) == known[1]:
                right += 1
            else:
                wrong.append(name)
    told = f"{right}" + (f"; {wrong[0]} is of another ball" if wrong else "")
    what = "of balls around the test points"
    findings.add("certificates", what, f"{right + len(wrong)}", told, same=not wrong)
    if unknown:
        findings.skip(
            f"whose balls {unknown} certificates are of",
            "their points are not known without the data",
        )
