"""The verification stage: sampled points through the ladder, with their counterexamples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.certificates import Carried, carried_over, certified, network_of, without
from tasks.core.data.datasets import stratified_sample
from tasks.core.evidence import figures, metrics
from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
from tasks.core.files import ArtifactRef, written_atomically
from tasks.core.verdict_columns import STAGES, WITNESS_WORDS
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.data import DatasetRef, load
from tasks.settings import AttackSettings, VerificationSettings, decimal
from tasks.tracking import Run, RunRef

if TYPE_CHECKING:
    from tasks.core.arrays import Inputs, IntArray
    from tasks.core.data.datasets import Dataset
    from tasks.core.models.loading import LoadedModel
    from tasks.core.properties.domain import Domain
    from tasks.core.search.first_stages import AttackStrength
    from tasks.core.verification.balls import Sample

COUNTEREXAMPLES = "counterexamples"
SHOWN = 5  # numbers of rows in a warning


@task(name="verify", cache_policy=NO_CACHE)
def verify(
    dataset: DatasetRef,
    model: ArtifactRef,
    settings: VerificationSettings,
    attack: AttackSettings,
    seed: int,
    run: RunRef,
    fresh: bool = False,
) -> ArtifactRef:
    """A verdict for every sampled point at every radius: the table, with counterexamples.

    `model` is a Keras, ONNX or `.nnet` file; `fresh` ignores verdicts stored before.
    """
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.tolerance import answering

    log, started, data = Run(run), monotonic(), load(dataset)
    loaded = answering(load_artifact(model), data)
    sample = sample_for(loaded, data, settings.count_of(len(data.test_labels)), seed)
    network = network_of(model, loaded, sample, log) if settings.certificates else None
    carried = Carried()
    if network is not None:
        carried = carried_over(network, loaded, dataset.name, sample, settings.epsilons, log)
    results = verify_sample(
        loaded,
        sample,
        settings.epsilons,
        settings,
        attack,
        seed,
        fresh=fresh,
        carried=carried.results,
        nested=settings.samples == "all",
    )
    if settings.engine != "marabou":
        results = witnessed(loaded, sample, results, settings, attack, seed, fresh=fresh)
    if network is not None:
        results = certified(network, sample, results, settings, log, carried)
    elif settings.certificates:
        results = without(results)
    log.metrics({"verification/seconds": monotonic() - started})
    log.tags({"network.sha256": loaded.network.sha256})
    return _log_results(log, results, sample, data, run.folder)


def warn_of_broken_relations(domain: Domain, inputs: Inputs, names: IntArray) -> None:
    """Around such a row there may be no valid one, of which everything would be proved.

    `names` are what people know the rows by, (rows,).
    """
    for relation in domain.relations:
        broken = names[~relation.holds(inputs.reshape(len(inputs), -1).astype(np.float64))]
        if len(broken):
            shown = ", ".join(map(str, broken[:SHOWN])) + (", …" if len(broken) > SHOWN else "")
            console.warn(
                f"{relation.text} is broken by {len(broken)} of {len(inputs)} rows ({shown}): what "
                "is proved of them is of valid rows nearby, of which there may be none"
            )


def verify_sample(
    model: LoadedModel,
    sample: Sample,
    epsilons: Sequence[float],
    settings: VerificationSettings,
    attack: AttackSettings,
    seed: int,
    *,
    title: str = "verify",
    fresh: bool = False,
    carried: Mapping[tuple[int, float], VerificationResult] | None = None,
    nested: bool = False,
) -> list[VerificationResult]:
    """A verdict for every ball as settings ask: a stage, with the project's stored verdicts.

    Of the settings, `samples`, `epsilons` and what concerns witnesses are not looked at.
    """
    from tasks.core.verification import local_robustness

    warn_of_broken_relations(sample.perturbation.domain, sample.inputs, sample.indices)
    counts: Counter[Verdict] = Counter()
    with console.stage(title, len(sample.labels) * len(epsilons)) as progress:

        def on_result(result: VerificationResult) -> None:
            counts[result.verdict] += 1
            progress.advance(note=" · ".join(f"{counts[v]} {v}" for v in Verdict if counts[v]))

        with VerdictStore(PROJECT_STORE) as store:
            return local_robustness.verify(
                model.runtime,
                model.network,
                sample,
                epsilons,
                engine=settings.engine,
                attack=_strength(attack, seed),
                timeout_seconds=settings.timeout_seconds,
                resources=settings.resources,
                store=store,
                fresh=fresh,
                carried=carried,
                nested=nested,
                on_result=on_result,
            )


def witnessed(
    model: LoadedModel,
    sample: Sample,
    results: list[VerificationResult],
    settings: VerificationSettings,
    attack: AttackSettings,
    seed: int,
    *,
    fresh: bool = False,
) -> list[VerificationResult]:
    """The results, a share of the proofs marked with what Marabou says of them: a stage of its own.

    Raises:
        ContradictionError: Marabou finds a point that breaks what was proved.
    """
    from tasks.core.verification import cross_checks
    from tasks.core.verification.local_robustness import LocalRobustness

    asked = cross_checks.to_be_witnessed(results, settings.witness_share, seed)
    if not asked:
        return results
    question = LocalRobustness(
        model.runtime,
        model.network,
        sample.perturbation,
        "marabou",
        settings.witness_seconds,
        _strength(attack, seed),
        prove_again=False,
    )
    counts: Counter[str] = Counter()
    with console.stage("witness", len(asked)) as progress, VerdictStore(PROJECT_STORE) as store:

        def on_witness(word: str) -> None:
            counts[word] += 1
            progress.advance(note=" · ".join(f"{counts[w]} {w}" for w in sorted(counts)))

        return cross_checks.witnessed(
            question,
            sample,
            results,
            asked,
            settings.resources,
            store=store,
            fresh=fresh,
            on_witness=on_witness,
        )


def _strength(attack: AttackSettings, seed: int) -> AttackStrength:
    from tasks.core.search.first_stages import AttackStrength

    return AttackStrength(attack.pgd_steps, attack.pgd_restarts, seed)


def sample_for(model: LoadedModel, data: Dataset, count: int, seed: int) -> Sample:
    """A stratified sample of the test set in the input shape of a model that answers the data."""
    from tasks.core.verification.balls import Sample

    indices = stratified_sample(data.test_labels, count, seed)
    inputs = data.test_inputs[indices].reshape(count, *model.input_shape)
    return Sample(indices, inputs, data.test_labels[indices], data.perturbation)


def _log_results(
    log: Run,
    results: list[VerificationResult],
    sample: Sample,
    data: Dataset,
    folder: Path,
) -> ArtifactRef:
    path, table = folder / "tables" / "verification.csv", metrics.verification_table(results)
    with written_atomically(path) as temporary:
        table.to_csv(temporary, index=False)
    log.files("tables", path)
    figure = folder / "figures" / "decided_by.png"
    points = table["sample_index"].nunique()
    which = "test" if points == len(data.test_labels) else "sampled"
    title = f"Which stage decided what, {points:,} {which} points"
    unit = sample.perturbation.unit
    figures.decided_by(metrics.decided_by_counts(table), points, title, unit, figure)
    log.files("figures", figure)
    log.metrics(
        {
            f"verification/seconds/{stage}": float(table[f"seconds_{stage}"].sum())
            for stage in STAGES
        }
        | {"verification/witness/seconds": float(table["witness_seconds"].sum())}
        | {
            name: float((table["witness"] == word).sum())
            for word in WITNESS_WORDS
            for name in (f"verification/witness/{word}", f"verification/witness_{word}")
        }
    )
    _save_counterexamples(results, sample, data, folder / COUNTEREXAMPLES)
    log.folder(COUNTEREXAMPLES)
    test_size = len(data.test_labels)
    summary = metrics.verification_summary(table, data.positive, test_size).set_index("epsilon")
    for name in metrics.COUNTS:
        log.per_epsilon(f"verification/{name}", summary[name].to_dict())
    for name in (*metrics.SHARES, *metrics.EXACT, "certified_recall"):
        if name not in summary:
            continue
        log.per_epsilon(f"verification/{name}", summary[name].to_dict(), curve=True)
    return ArtifactRef.to(path)


def _save_counterexamples(
    results: list[VerificationResult], sample: Sample, data: Dataset, folder: Path
) -> None:
    """One file per broken ball, but one for all balls that break because a smaller one does.

    A misclassified sample has one for all radii.

    `classes` are the names of label and prediction, `changes` what of a table's row was changed.
    """
    clean = dict(zip(sample.indices.tolist(), sample.inputs, strict=True))
    seen = set()
    for result in results:
        if result.counterexample is None or result.follows_from is not None:
            continue
        name = f"sample_{result.sample_index}_eps_{decimal(result.epsilon)}.npz"
        if result.decided_by is DecidedBy.CLEAN:
            name = f"sample_{result.sample_index}_misclassified.npz"
        if name in seen:
            continue
        seen.add(name)
        before, labels = clean[result.sample_index], (result.label, result.target)
        with written_atomically(folder / name) as temporary:
            np.savez_compressed(
                temporary,
                allow_pickle=False,
                image=result.counterexample,
                clean=before,
                classes=["" if label is None else data.class_names[label] for label in labels],
                changes=np.array(data.domain.moves(before, result.counterexample), dtype=np.str_),
                sample_index=result.sample_index,
                label=result.label,
                predicted=-1 if result.target is None else result.target,
                epsilon=result.epsilon,
            )
