"""Certificates of a run's proofs, which the independent checker has passed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.files import ArtifactRef, written_atomically
from tasks.core.verdicts import CHECKED, NO_CERTIFICATE, Verdict, VerificationResult
from tasks.settings import VerificationSettings, decimal
from tasks.tracking import Run

if TYPE_CHECKING:
    from tasks.core.certificates.certify import Balls
    from tasks.core.verification.balls import Sample

FOLDER, NETWORK = "certificates", "model.onnx"


def certified(
    model: ArtifactRef,
    sample: Sample,
    results: Sequence[VerificationResult],
    settings: VerificationSettings,
    log: Run,
) -> list[VerificationResult]:
    """The results, each proof with what became of its certificate: a stage of its own.

    The certificates, a file for each radius, and the network that they speak about are logged. A
    network that the checker does not read has none, which is said.
    """
    from tasks.core.certificates.certify import certify_balls

    started, folder = monotonic(), log.ref.folder / FOLDER
    network, files = folder / NETWORK, list[Path]()
    proved = [result for result in results if result.verdict is Verdict.ROBUST]
    words = dict.fromkeys(((r.sample_index, r.epsilon) for r in proved), NO_CERTIFICATE)
    try:
        write_network(model.verified_path(), network)
        with console.stage("certify", len(proved)) as progress:
            for epsilon in sorted({result.epsilon for result in proved}):
                balls = balls_of(sample, [r for r in proved if r.epsilon == epsilon])
                path = folder / f"eps_{decimal(epsilon)}.npz"
                for found in certify_balls(
                    network,
                    balls,
                    path,
                    timeout_seconds=settings.timeout_seconds,
                    resources=settings.resources,
                    on_proof=progress.advance,
                ):
                    if found.proved:
                        words[int(found.name.partition("@")[0]), epsilon] = CHECKED
                files.append(path)
    except CertiflowError as error:
        log.alert("certificates", f"no certificates: {error}")
        return _marked(results, words)
    log.files(FOLDER, network, *files)
    counts = Counter(epsilon for (_, epsilon), word in words.items() if word == CHECKED)
    log.per_epsilon("verification/certificates", {e: counts[e] for e in settings.epsilons})
    log.metrics(
        {
            "verification/certificates/seconds": monotonic() - started,
            "verification/certificates/bytes": sum(path.stat().st_size for path in files),
        }
    )
    return _marked(results, words)


def write_network(model: Path, network: Path) -> None:
    """The model in a Keras or ONNX file as the ONNX file that certificates speak about.

    Raises:
        CertiflowError: it cannot be written as one.
    """
    network.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(network) as temporary:
        match model.suffix:
            case ".onnx":
                shutil.copyfile(model, temporary)
            case ".keras":
                import keras

                from tasks.core.models.onnx_export import exported

                loaded = keras.models.load_model(model, compile=False, safe_mode=True)
                temporary.write_bytes(exported(loaded).SerializeToString())
            case other:
                raise CertiflowError(f"{model.name}: expected a Keras or ONNX file, got '{other}'")


def balls_of(sample: Sample, results: Sequence[VerificationResult]) -> Balls:
    """The questions behind results, by the names that certificates have for them."""
    from tasks.core.certificates.certify import Balls

    rows = {index: row for row, index in enumerate(sample.indices.tolist())}
    (epsilon,) = {result.epsilon for result in results}
    places = [rows[result.sample_index] for result in results]
    boxes, owners = sample.perturbation.boxes(sample.inputs[places], epsilon)
    names = [f"{result.sample_index}@{decimal(epsilon)}" for result in results]
    return Balls(names, np.array([r.label for r in results]), boxes, owners)


def _marked(
    results: Sequence[VerificationResult], words: dict[tuple[int, float], str]
) -> list[VerificationResult]:
    return [
        replace(result, certificate=words.get((result.sample_index, result.epsilon), ""))
        for result in results
    ]
