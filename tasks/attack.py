"""The attack and bound stages over the whole test set: FGSM, PGD, certified accuracy."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.arrays import Mask
from tasks.core.evidence import metrics
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef, load
from tasks.settings import AttackSettings
from tasks.tracking import Run, RunRef
from tasks.train import ModelRef, load_classifier

if TYPE_CHECKING:
    from tasks.core.data.datasets import Dataset
    from tasks.core.evidence.figures import AdversarialExamples
    from tasks.core.models.runtimes import Attackable

EXAMPLE_COUNT = 6
EXAMPLE_RADII = 5


@task(name="fgsm", cache_policy=NO_CACHE)
def fgsm(
    dataset: DatasetRef, model: ModelRef, settings: AttackSettings, run: RunRef
) -> ArtifactRef:
    """FGSM at every radius on every test image: `predictions` (epsilons, n) and `clean` (n,)."""
    from tasks.core.attacks import gradient
    from tasks.core.evidence import figures, row_figures

    data, log, started = load(dataset), Run(run), monotonic()
    classifier = load_classifier(model.file, data, settings.batch_size)
    clean = classifier.predictions(data.test_inputs)
    with console.stage("fgsm", len(data.test_labels)) as progress:
        predictions, vanished = gradient.fgsm(
            classifier,
            data.test_inputs,
            data.test_labels,
            data.perturbation,
            settings.epsilons,
            on_batch=progress.advance,
        )
        right = (clean == data.test_labels) & (predictions == data.test_labels)
        progress.advance(0, f"accuracy {right[-1].mean():.2%} at {settings.epsilons[-1]:g}")
    first = right[:, : metrics.FIRST].mean(axis=1)
    broken = metrics.success_rate(clean == data.test_labels, right)
    log.per_epsilon("fgsm/robust_accuracy", _by(settings, right.mean(axis=1)), curve=True)
    log.per_epsilon(f"fgsm/robust_accuracy_first_{metrics.FIRST}", _by(settings, first))
    log.per_epsilon("fgsm/success_rate", _by(settings, broken))
    log.metrics(
        {
            "fgsm/seconds": monotonic() - started,
            "fgsm/vanished_gradient_share": vanished.mean(),
        }
    )
    if vanished.any():
        log.alert(
            "vanished_gradients",
            f"the gradient is zero on {int(vanished.sum())} of {len(vanished)} inputs: FGSM says "
            "nothing about them (gradient masking)",
        )
    figure = run.folder / "figures" / "adversarial_examples.png"
    examples = _examples(classifier, data, settings)
    if data.domain.is_table:
        classes, is_sure = data.class_names, data.tolerance is None
        row_figures.adversarial_rows(examples, data.domain, classes, figure, confident=is_sure)
    else:
        figures.adversarial_examples(examples, data.class_names, figure)
    log.files("figures", figure)
    return _save(run.folder / "attacks" / "fgsm.npz", predictions=predictions, clean=clean)


@task(name="pgd", cache_policy=NO_CACHE)
def pgd(
    dataset: DatasetRef,
    model: ModelRef,
    fgsm_file: ArtifactRef,
    settings: AttackSettings,
    seed: int,
    run: RunRef,
) -> ArtifactRef:
    """PGD on what FGSM and smaller radii left unbroken: `broken` (epsilons, n), theirs included.

    Clean mistakes count as broken.
    """
    from tasks.core.attacks import gradient

    data, log, started = load(dataset), Run(run), monotonic()
    classifier = load_classifier(model.file, data, settings.batch_size)
    found = _load(fgsm_file)
    right = found["clean"] == data.test_labels
    with console.stage("pgd", len(settings.epsilons)) as progress:

        def on_epsilon(epsilon: float, broken: Mask) -> None:
            progress.advance(note=f"accuracy {(~broken).mean():.2%} at {epsilon:g}")

        broken = gradient.broken_by_pgd(
            classifier,
            data.test_inputs,
            data.test_labels,
            data.perturbation,
            settings.epsilons,
            right & (found["predictions"] == data.test_labels),
            num_steps=settings.pgd_steps,
            num_restarts=settings.pgd_restarts,
            seed=seed,
            on_epsilon=on_epsilon,
        )
    robust = (~broken).mean(axis=1)
    log.per_epsilon("pgd/robust_accuracy", _by(settings, robust), curve=True)
    log.metrics({"pgd/seconds": monotonic() - started})
    return _save(run.folder / "attacks" / "pgd.npz", broken=broken)


@task(name="bounds", cache_policy=NO_CACHE)
def bounds(
    dataset: DatasetRef,
    model: ModelRef,
    fgsm_file: ArtifactRef,
    pgd_file: ArtifactRef,
    settings: AttackSettings,
    run: RunRef,
) -> ArtifactRef:
    """Certified accuracy of the whole test set: linear bounds on what no attack broke.

    Saves `certified` (epsilons, n): the clean prediction is right and every margin's lower bound is
    positive.
    """
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.tolerance import answering
    from tasks.core.search import whole_set as core

    data, log, started = load(dataset), Run(run), monotonic()
    network = answering(load_artifact(model.file), data).network
    right = _load(fgsm_file)["clean"] == data.test_labels
    broken = _load(pgd_file)["broken"]
    certified = np.zeros_like(broken)
    with console.stage("bounds", len(settings.epsilons)) as progress:
        for index, epsilon in enumerate(settings.epsilons):
            # Bounds hardly ever prove a ball in which they left a smaller one open.
            promising = certified[index - 1] if index else right
            left = np.flatnonzero(promising & ~broken[index])
            found = core.certified(
                network, data.test_inputs[left], data.test_labels[left], data.perturbation, epsilon
            )
            certified[index, left[found]] = True
            progress.advance(note=f"certified {certified[index].mean():.2%} at {epsilon:g}")
    log.per_epsilon("bounds/certified_accuracy", _by(settings, certified.mean(axis=1)), curve=True)
    log.metrics({"bounds/seconds": monotonic() - started})
    return _save(run.folder / "attacks" / "bounds.npz", certified=certified)


def epsilon_grid(
    dataset: DatasetRef,
    fgsm_file: ArtifactRef,
    pgd_file: ArtifactRef,
    bounds_file: ArtifactRef,
    settings: AttackSettings,
) -> Any:
    """`metrics.epsilon_grid` of the three stages' files."""
    found, data = _load(fgsm_file), load(dataset)
    return metrics.epsilon_grid(
        settings.epsilons,
        data.test_labels,
        found["clean"],
        found["predictions"],
        _load(pgd_file)["broken"],
        _load(bounds_file)["certified"],
        data.positive,
    )


def test_points(
    dataset: DatasetRef,
    fgsm_file: ArtifactRef,
    pgd_file: ArtifactRef,
    bounds_file: ArtifactRef,
    settings: AttackSettings,
) -> dict[str, NDArray[Any]]:
    """What held at each test point: `clean` (n,), and `fgsm`, `pgd`, `certified` (epsilons, n).

    Each says that the prediction is right: undisturbed, after the attack, everywhere in the ball.
    """
    found, labels = _load(fgsm_file), load(dataset).test_labels
    clean = found["clean"] == labels
    fgsm_right = clean & (found["predictions"] == labels)
    return {
        "epsilons": np.array(settings.epsilons),
        "clean": clean,
        "fgsm": fgsm_right,
        "pgd": fgsm_right & ~_load(pgd_file)["broken"],
        "certified": _load(bounds_file)["certified"],
    }


def _by(settings: AttackSettings, values: NDArray[np.floating]) -> dict[float, float]:
    return dict(zip(settings.epsilons, values.tolist(), strict=True))


def _save(path: Path, **arrays: NDArray[Any]) -> ArtifactRef:
    with written_atomically(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
    return ArtifactRef.to(path)


def _load(ref: ArtifactRef) -> dict[str, NDArray[Any]]:
    with np.load(ref.verified_path(), allow_pickle=False) as arrays:
        return dict(arrays)


def _examples(
    classifier: Attackable, data: Dataset, settings: AttackSettings
) -> AdversarialExamples:
    """The first test image of each of the first classes, clean and at radii across the grid."""
    import tensorflow as tf

    from tasks.core.attacks import gradient
    from tasks.core.evidence.figures import AdversarialExamples

    rows = np.unique(data.test_labels, return_index=True)[1][:EXAMPLE_COUNT]
    inputs, labels = data.test_inputs[rows], data.test_labels[rows]
    radii = [epsilon for epsilon in settings.epsilons if epsilon > 0]
    spread = np.unique(np.linspace(0, len(radii) - 1, EXAMPLE_RADII).round().astype(int))
    epsilons = [0.0, *(radii[index] for index in spread if radii)]
    points = np.stack(
        [
            gradient.fgsm_points(classifier, inputs, labels, data.perturbation, epsilon).points
            for epsilon in epsilons
        ]
    )
    logits = np.stack([classifier.logits(batch) for batch in points])
    return AdversarialExamples(
        epsilons=epsilons,
        labels=labels,
        points=points,
        predictions=logits.argmax(axis=2),
        confidences=np.asarray(tf.nn.softmax(logits)).max(axis=2),
    )
