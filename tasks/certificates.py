"""Certificates of a run's proofs, which the independent checker has passed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.files import ArtifactRef, written_atomically
from tasks.core.verdicts import CHECKED, NO_CERTIFICATE, DecidedBy, Verdict, VerificationResult
from tasks.settings import VerificationSettings, decimal
from tasks.tracking import RegisteredModel, Run, model_name, run_of

if TYPE_CHECKING:
    from tasks.core.certificates.certify import Balls
    from tasks.core.certificates.writing import BoxProof
    from tasks.core.models.loading import LoadedModel
    from tasks.core.verification.balls import Sample

FOLDER, NETWORK = "certificates", "model.onnx"


@dataclass(frozen=True)
class Carried:
    """Proofs of the champion's certificates that hold of a new network as well.

    `results` by sample index and radius; `proofs` by the names that certificates have for them, one
    for each box.
    """

    results: Mapping[tuple[int, float], VerificationResult] = field(default_factory=dict)
    proofs: Mapping[str, Sequence[BoxProof]] = field(default_factory=dict)


def network_of(model: ArtifactRef, loaded: LoadedModel, sample: Sample, log: Run) -> Path | None:
    """The ONNX file that certificates of a model speak about, in the run's folder.

    None, which is said, where the checker does not read it, or it is not the function `loaded`.
    """
    from tasks.core.certificates.certify import check_same, provable
    from tasks.core.models.agreement import seeded_points

    path = log.ref.folder / FOLDER / NETWORK
    inputs = sample.inputs.reshape(len(sample.inputs), -1).astype(np.float64)
    try:
        write_network(model.verified_path(), path)
        network, _ = provable(path)
        for points in (inputs, seeded_points(inputs.shape[1])):
            check_same(network, loaded.network, points)
    except CertiflowError as error:
        log.alert("certificates", f"no certificates: {error}")
        return None
    return path


def carried_over(
    network: Path,
    loaded: LoadedModel,
    dataset: str,
    sample: Sample,
    epsilons: Sequence[float],
    log: Run,
) -> Carried:
    """Tries the champion's certificates on a new model, in the file `network`, before any search.

    How many proofs carry over, and what they took to be found for the champion, is said and logged.
    Nothing does where there is no champion with certificates, or where the model ends with a
    softmax or sigmoid: a check of its logits cannot say whether its probabilities are apart in
    float32.
    """
    from tasks.core.certificates.transfer import transferred

    if loaded.ending != "logits":
        return Carried()
    champion = RegisteredModel(model_name(dataset)).champion()
    if champion is None or not champion.run_id:
        return Carried()
    record, started = run_of(champion), monotonic()
    before = record.artifact("tables/verification.csv")
    old = {epsilon: record.artifact(certificate_of(epsilon)) for epsilon in epsilons}
    if before is None or not any(old.values()):
        return Carried()
    rows = pd.read_csv(before).set_index(["sample_index", "epsilon"])
    results, proofs = dict[tuple[int, float], VerificationResult](), dict[str, Any]()
    try:
        for epsilon, path in old.items():
            if path is None:
                continue
            asked = balls_of(sample, epsilon, range(len(sample.labels)))
            found, known = transferred(network, path, asked)
            proofs |= known
            for result in found:
                index = int(result.name.partition("@")[0])
                results[index, epsilon] = VerificationResult(
                    index,
                    int(asked.labels[asked.names.index(result.name)]),
                    epsilon,
                    Verdict.ROBUST,
                    DecidedBy(rows.loc[(index, epsilon), "decided_by"]),
                    0.0,
                    deployed=result.deployed,
                    reason=f"by the certificate of {champion}",
                )
    except CertiflowError as error:
        console.warn(f"no proof is carried over from {champion}: {error}")
        return Carried()
    seconds, found_in = monotonic() - started, float(rows.loc[list(results), "seconds"].sum())
    numbers = {"carried": len(results), "carried_seconds": seconds, "carried_before": found_in}
    log.metrics({f"verification/certificates/{name}": each for name, each in numbers.items()})
    console.say(
        "certificates",
        f"{len(results)} proofs carry over from {champion}: checked in {seconds:.2f} s, found in "
        f"{found_in:.2f} s before",
    )
    return Carried(results, proofs)


def certified(
    network: Path,
    sample: Sample,
    results: Sequence[VerificationResult],
    settings: VerificationSettings,
    log: Run,
    carried: Carried,
) -> list[VerificationResult]:
    """The results, each proof with what became of its certificate: a stage of its own.

    The certificates, a file for each radius, and the network that they speak about are logged.
    """
    from tasks.core.certificates.certify import certify_balls

    started, folder = monotonic(), log.ref.folder
    files = list[Path]()
    proved = [result for result in results if result.verdict is Verdict.ROBUST]
    words = dict.fromkeys(((r.sample_index, r.epsilon) for r in proved), NO_CERTIFICATE)
    rows = {index: row for row, index in enumerate(sample.indices.tolist())}
    with console.stage("certify", len(proved)) as progress:
        for epsilon in sorted({result.epsilon for result in proved}):
            mine = [rows[r.sample_index] for r in proved if r.epsilon == epsilon]
            path = folder / certificate_of(epsilon)
            for found in certify_balls(
                network,
                balls_of(sample, epsilon, mine),
                path,
                timeout_seconds=settings.timeout_seconds,
                resources=settings.resources,
                known=carried.proofs,
                on_proof=progress.advance,
            ):
                words[int(found.name.partition("@")[0]), epsilon] = CHECKED
            files.append(path)
    log.files(FOLDER, network, *files)
    counts = Counter(epsilon for (_, epsilon), word in words.items() if word == CHECKED)
    log.per_epsilon("verification/certificates", {e: counts[e] for e in settings.epsilons})
    log.metrics(
        {
            "verification/certificates/seconds": monotonic() - started,
            "verification/certificates/bytes": sum(path.stat().st_size for path in files),
        }
    )
    return [
        replace(result, certificate=words.get((result.sample_index, result.epsilon), ""))
        for result in results
    ]


def certificate_of(epsilon: float) -> str:
    """The path of a radius' certificates among a run's artifacts."""
    return f"{FOLDER}/eps_{decimal(epsilon)}.npz"


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


def balls_of(sample: Sample, epsilon: float, rows: Sequence[int]) -> Balls:
    """The questions around some points of the sample, by the names that certificates have."""
    from tasks.core.certificates.certify import Balls

    places = list(rows)
    boxes, owners = sample.perturbation.boxes(sample.inputs[places], epsilon)
    names = [f"{index}@{decimal(epsilon)}" for index in sample.indices[places].tolist()]
    return Balls(names, sample.labels[places], boxes, owners)


def without(results: Sequence[VerificationResult]) -> list[VerificationResult]:
    """The results of a model that has no certificates, though they were asked for."""
    return [
        replace(result, certificate=NO_CERTIFICATE) if result.verdict is Verdict.ROBUST else result
        for result in results
    ]
