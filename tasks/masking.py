"""The stage that asks whether attacks failed for want of gradients."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.data.datasets import stratified_sample
from tasks.data import DatasetRef, load
from tasks.tracking import Run, RunRef
from tasks.train import ModelRef, load_classifier

IMAGES = 500  # of the test set, stratified


@task(name="masking", cache_policy=NO_CACHE)
def masking(dataset: DatasetRef, model: ModelRef, epsilon: float, seed: int, run: RunRef) -> None:
    """Checks for gradient masking at `epsilon`; what fails is a warning on the run."""
    from tasks.core.attacks import masking

    data, log = load(dataset), Run(run)
    rows = stratified_sample(data.test_labels, min(IMAGES, len(data.test_labels)), seed)
    with console.stage("masking", len(rows)) as progress:
        evidence = masking.measure(
            load_classifier(model.file, data),
            data.test_inputs[rows],
            data.test_labels[rows],
            data.perturbation,
            epsilon,
            seed,
        )
        if evidence is None:
            progress.advance(len(rows), "nothing to attack: no image is labelled right")
            return
        signs = masking.signs_of_masking(evidence)
        progress.advance(len(rows), f"{len(signs)} signs of gradient masking at {epsilon:g}")
    log.metrics(
        {
            "masking/signs": len(signs),
            "masking/fgsm_success": evidence.fgsm_success,
        }
    )
    log.per_epsilon(
        "masking/pgd_success", dict(zip(evidence.epsilons, evidence.pgd_success, strict=True))
    )
    for step, (along, random) in enumerate(
        zip(evidence.gradient_loss, evidence.random_loss, strict=True)
    ):
        losses = {"masking/loss_along_gradient": along, "masking/loss_along_random": random}
        log.metrics(losses, step=step)
    if signs:
        log.alert("gradient_masking", "signs of gradient masking: " + "; ".join(signs))
