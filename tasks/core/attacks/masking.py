"""Signs that attacks fail for want of gradients, not for want of adversarial examples.

Such a model looks robust and is not. The checks are those of Athalye et al. 2018 ("Obfuscated
Gradients Give a False Sense of Security", section 3.1) and, along the attack's direction, of Wong
et al. 2020; whether there is a gradient at all, FGSM tells. They cannot show that nothing is
masked: only a proof shows robustness.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Inputs, IntArray
from tasks.core.attacks import gradient
from tasks.core.models.runtimes import Attackable
from tasks.core.properties.perturbation import Perturbation

STEPS, RESTARTS = 40, 2
WHOLE_CUBE = 1.0  # the radius at which every image can become every other
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of epsilon, along the attack's direction
NOISE = 0.02  # differences of shares that are not taken for a sign
LOSS_NOISE = 0.05  # the same of losses, relative


@dataclass(frozen=True, eq=False)
class MaskingEvidence:
    """What was measured on inputs that the model labels right.

    Attributes:
        epsilons: half, one and two epsilon, and the whole cube.
        is_cube_free: whether every input can become every other one at the last of them.
        pgd_success: share broken at each, by PGD from random points alone.
        fgsm_success: share broken by FGSM at epsilon.
        gradient_loss, random_loss: mean cross-entropy at `SHARES` of epsilon along the gradient's
            sign and along random signs.
    """

    epsilons: tuple[float, ...]
    is_cube_free: bool
    pgd_success: tuple[float, ...]
    fgsm_success: float
    gradient_loss: tuple[float, ...]
    random_loss: tuple[float, ...]


def measure(
    classifier: Attackable,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    epsilon: float,
    seed: int,
) -> MaskingEvidence | None:
    """The evidence on the inputs, shape (n, …), that are labelled right; None when none is."""
    right = classifier.predictions(inputs) == labels
    if not right.any():
        return None
    inputs, labels = inputs[right], labels[right]
    epsilons = (epsilon / 2, epsilon, min(2 * epsilon, WHOLE_CUBE), WHOLE_CUBE)
    found = [
        gradient.pgd(
            classifier,
            inputs,
            labels,
            perturbation,
            radius,
            num_steps=STEPS,
            num_restarts=RESTARTS,
            seed=seed,
            from_fgsm=False,
        )
        for radius in epsilons
    ]
    fgsm = gradient.fgsm_points(classifier, inputs, labels, perturbation, epsilon)
    uphill = gradient.gradient_sign(classifier, inputs, labels)
    generator = np.random.default_rng(seed)
    signs = generator.choice(np.array([-1, 1], np.float32), inputs.shape)
    return MaskingEvidence(
        epsilons=epsilons,
        is_cube_free=not perturbation.domain.is_table,
        pgd_success=tuple(float(attacked.broken.mean()) for attacked in found),
        fgsm_success=float(fgsm.broken.mean()),
        gradient_loss=_losses_along(classifier, inputs, labels, perturbation, uphill, epsilon),
        random_loss=_losses_along(classifier, inputs, labels, perturbation, signs, epsilon),
    )


def signs_of_masking(evidence: MaskingEvidence) -> list[str]:
    """A sentence for each check that fails; none when all pass."""
    return list(_failed_checks(evidence))


def _failed_checks(evidence: MaskingEvidence) -> Iterator[str]:
    epsilon = evidence.epsilons[1]
    if evidence.fgsm_success > evidence.pgd_success[1] + NOISE:
        yield (
            f"at epsilon {epsilon:g} FGSM breaks {evidence.fgsm_success:.1%}, PGD from random "
            f"points only {evidence.pgd_success[1]:.1%}"
        )
    for index, (weak, strong) in enumerate(
        zip(evidence.pgd_success[:-1], evidence.pgd_success[1:], strict=True)
    ):
        if strong < weak - NOISE:
            yield (
                f"PGD breaks {weak:.1%} at epsilon {evidence.epsilons[index]:g}, but only "
                f"{strong:.1%} at {evidence.epsilons[index + 1]:g}"
            )
    if evidence.is_cube_free and evidence.pgd_success[-1] < 1 - NOISE:
        yield (
            f"with every pixel free PGD breaks {evidence.pgd_success[-1]:.1%}, where all images "
            "can be broken"
        )
    end, peak = evidence.gradient_loss[-1], max(evidence.gradient_loss)
    if end < peak * (1 - LOSS_NOISE):
        yield (
            f"the loss along the gradient's sign falls again before epsilon {epsilon:g}, from "
            f"{peak:.3g} to {end:.3g}"
        )
    if end < evidence.random_loss[-1] * (1 - LOSS_NOISE):
        yield (
            f"the loss grows less along the gradient's sign, to {end:.3g}, than along random "
            f"signs, to {evidence.random_loss[-1]:.3g}"
        )


def _losses_along(
    classifier: Attackable,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    signs: NDArray[np.float32],
    epsilon: float,
) -> tuple[float, ...]:
    import tensorflow as tf

    found = []
    for share in SHARES:
        points = gradient.corners(perturbation, inputs, signs, share * epsilon)
        logits = classifier.logits(points)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        found.append(float(np.mean(losses)))
    return tuple(found)
