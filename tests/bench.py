"""`make bench`: how fast the FGSM grid is, beside a plain loop and the attack libraries.

Each way attacks the same images with the same network in one process; every library's accuracies
are printed, so that a fast wrong answer is seen.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.processes import environment

environment.prepare(verbose=False)

import keras  # noqa: E402

from tasks.core.attacks import gradient  # noqa: E402
from tasks.core.data.datasets import Dataset  # noqa: E402
from tasks.core.models.runtimes import Classifier  # noqa: E402
from tasks.core.sources import catalogue  # noqa: E402
from tasks.core.sources.download import DatasetUnavailableError, fetch  # noqa: E402
from tasks.core.training import loop  # noqa: E402
from tasks.core.training.training_settings import TrainingSettings  # noqa: E402

EPSILONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
REPEATS = 5
CACHE = Path("data")

Attack = Callable[[Classifier, Dataset], list[float]]


def ours(classifier: Classifier, data: Dataset) -> list[float]:
    """One gradient per image, used at every radius."""
    predictions, _ = gradient.fgsm(
        classifier, data.test_inputs, data.test_labels, data.perturbation, EPSILONS
    )
    return (predictions == data.test_labels).mean(axis=1).tolist()


def plain_loop(classifier: Classifier, data: Dataset) -> list[float]:
    """The gradient anew at every radius."""
    return [
        float(
            1
            - gradient.fgsm_points(
                classifier, data.test_inputs, data.test_labels, data.perturbation, epsilon
            ).broken.mean()
        )
        for epsilon in EPSILONS
    ]


def art(batch_size: int) -> Attack:
    """IBM's Adversarial Robustness Toolbox."""
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import TensorFlowV2Classifier

    def attack(classifier: Classifier, data: Dataset) -> list[float]:
        estimator = TensorFlowV2Classifier(
            model=classifier.model,
            nb_classes=10,
            input_shape=data.input_shape,
            loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0.0, 1.0),
        )
        labels = np.eye(10)[data.test_labels]
        accuracies = []
        for epsilon in EPSILONS:
            points = data.test_inputs
            if epsilon > 0:  # it refuses zero
                method = FastGradientMethod(estimator, eps=epsilon, batch_size=batch_size)
                points = method.generate(points, labels)
            accuracies.append((classifier.predictions(points) == data.test_labels).mean())
        return [float(accuracy) for accuracy in accuracies]

    return attack


def foolbox(classifier: Classifier, data: Dataset) -> list[float]:
    """Foolbox Native, in batches of 1,000."""
    import foolbox as fb
    import tensorflow as tf

    model = fb.TensorFlowModel(classifier.model, bounds=(0, 1))
    broken = []
    for rows in classifier.batches(len(data.test_labels)):
        images = tf.convert_to_tensor(data.test_inputs[rows])
        labels = tf.convert_to_tensor(data.test_labels[rows])
        success = fb.attacks.LinfFastGradientAttack()(model, images, labels, epsilons=EPSILONS)[2]
        broken.append(np.asarray(success))
    return (1 - np.concatenate(broken, axis=1).mean(axis=1)).tolist()


def contestants() -> dict[str, Attack]:
    """Ours, the plain loop, and whichever libraries import."""
    found: dict[str, Attack] = {"certiflow": ours, "gradient at every radius": plain_loop}
    makers: dict[str, Callable[[], Attack]] = {
        "ART, batch 1000": lambda: art(1000),
        "ART, its default batch 32": lambda: art(32),
        "Foolbox": _foolbox_if_there,
    }
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def _foolbox_if_there() -> Attack:
    import foolbox as there  # noqa: F401

    return foolbox


def bench_data() -> Dataset:
    """MNIST, or the digits where it cannot be had."""
    try:
        fetch("mnist", CACHE)
        return catalogue.load("mnist", CACHE)
    except DatasetUnavailableError as error:
        print(f"{error}; measuring on digits")
        return catalogue.load("digits", CACHE)


def main() -> None:
    """Prints the table: median seconds, the ratio to ours, and the accuracies."""
    data = bench_data()
    settings = TrainingSettings(epochs=1, batch_size=128, validation_fraction=0.0)
    trained: Any = loop.train(data, settings, seed=0)
    classifier = Classifier(trained.model)
    table = Table(title=f"FGSM, {len(data.test_labels)} images of {data.name}, 8 radii")
    for column in ("", "seconds (median)", "ratio", "accuracy at 0.1"):
        table.add_column(column, justify="left" if not column else "right")
    baseline = None
    for name, attack in contestants().items():
        accuracies = attack(classifier, data)  # also the warm-up
        repeats = 1 if "32" in name else REPEATS
        seconds = statistics.median(_timed(attack, classifier, data) for _ in range(repeats))
        baseline = baseline or seconds
        accuracy = accuracies[EPSILONS.index(0.1)]
        table.add_row(name, f"{seconds:.2f}", f"{seconds / baseline:.1f}", f"{accuracy:.4f}")
    Console().print(table)


def _timed(attack: Attack, classifier: Classifier, data: Dataset) -> float:
    started = perf_counter()
    attack(classifier, data)
    return perf_counter() - started


if __name__ == "__main__":
    main()
