"""Proofs of one network tried on another: multipliers stay valid, only the bounds are new."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tasks.checker.check import Result
from tasks.core.certificates.certify import Balls, by_box, written
from tasks.core.certificates.reading import proved_in
from tasks.core.certificates.writing import BoxProof


def transferred(
    network: Path, certificate: Path, balls: Balls
) -> tuple[list[Result], Mapping[str, Sequence[BoxProof]]]:
    """Which of the balls the proofs of an old certificate show of a network, and these proofs.

    Of balls with the same name, label and boxes; what holds is what the checker passes.

    Raises:
        CertiflowError: the certificate is damaged.
    """
    known = {}
    for name, proved in proved_in(certificate).items():
        if name not in balls.names:
            continue
        question = balls.names.index(name)
        mine = np.flatnonzero(balls.owners == question)
        if proved.is_of(int(balls.labels[question]), balls.boxes[mine]):
            known[name] = proved.proofs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transferred.npz"
        results = written(network, balls, by_box(balls, known), path)
    return results, {result.name: known[result.name] for result in results}
