"""The training stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from tasks import console
from tasks.core.evidence import by_class
from tasks.core.files import ArtifactRef, sha256_of, written_atomically
from tasks.core.training.training_settings import TrainingSettings
from tasks.data import DatasetRef, load
from tasks.tracking import Run, RunRef

if TYPE_CHECKING:
    from tasks.core.arrays import Float32Array, IntArray
    from tasks.core.data.datasets import Dataset
    from tasks.core.models.runtimes import Attackable
    from tasks.core.training.loop import EpochMetrics

CHECKPOINTS = Path("checkpoints")  # of this project folder
CHECKPOINT_VERSION = "3"  # changes whenever a training's weights could: old states are not used


class CleanMeasures(BaseModel):
    """On the whole test set, undisturbed: accuracy, and what it hides where classes are unequal.

    `others` are `by_class.measures`, or of numbers `error_measures`; `never_predicted` the names of
    classes that no point is given.
    """

    model_config = ConfigDict(frozen=True)

    accuracy: float
    others: dict[str, float]
    never_predicted: tuple[str, ...]


class ModelRef(BaseModel):
    """A trained model's file, its MLflow id, and what it is worth undisturbed.

    `trained_here` says that the settings, data and seed made it.
    """

    model_config = ConfigDict(frozen=True)

    file: ArtifactRef
    model_id: str
    architecture: str
    clean: CleanMeasures
    trained_here: bool = True


@task(name="train", cache_policy=NO_CACHE)
def train(
    dataset: DatasetRef, settings: TrainingSettings, seed: int, run: RunRef, fresh: bool = False
) -> ModelRef:
    """Trains the network, logs every epoch and the model.

    A training of the same settings, data and seed that was interrupted goes on from its last
    epoch, unless `fresh`.
    """
    from tasks.core.models.runtimes import Classifier
    from tasks.core.training import loop

    data, log = load(dataset), Run(run)
    checkpoint = _checkpoint(dataset, settings, seed)
    if fresh:
        checkpoint.unlink(missing_ok=True)
    elif checkpoint.exists():
        console.say("train", f"goes on from {checkpoint}")
    with console.stage("train", settings.epochs) as progress:

        def on_epoch(epoch: int, metrics: EpochMetrics) -> None:
            log.metrics({f"train/{name}": value for name, value in metrics.items()}, step=epoch)
            progress.advance(note=_note(metrics))

        trained = loop.train(data, settings, seed, checkpoint=checkpoint, on_epoch=on_epoch)
    if trained.warning:
        log.alert("training", trained.warning)
    logits = Classifier(trained.model).logits(data.test_inputs)
    others = by_class.measures(data.test_labels, logits, data.positive)
    clean = measured(data, logits, others, log)
    log.metrics(
        {
            "train/seconds": sum(epoch["epoch_seconds"] for epoch in trained.history),
            "train/best_epoch": trained.best_epoch,
            "train/parameters": trained.model.count_params(),
        }
    )
    path = run.folder / "model.keras"
    with written_atomically(path) as temporary:
        trained.model.save(temporary)
    file = ArtifactRef.to(path)
    log.tags({"model.sha256": file.sha256})
    model_id = log.model(trained.model, data.test_inputs[:1])
    checkpoint.unlink(missing_ok=True)
    return ModelRef(
        file=file,
        model_id=model_id,
        architecture=settings.name,
        clean=clean,
    )


def measured(
    data: Dataset, logits: Float32Array, others: dict[str, float], log: Run
) -> CleanMeasures:
    """What a model does with the whole test set undisturbed, logged with its other measures."""
    predictions = logits.argmax(axis=1)
    missed = never_predicted(data, predictions)
    if missed:
        log.alert("classes", by_class.warning_of_never_predicted(missed))
    accuracy = float((predictions == data.test_labels).mean())
    log.metrics({"clean_accuracy": accuracy} | others)
    return CleanMeasures(accuracy=accuracy, others=others, never_predicted=missed)


def never_predicted(data: Dataset, predictions: IntArray) -> tuple[str, ...]:
    """The names of the classes that no test point is given; of numbers there are none."""
    if data.tolerance is not None:
        return ()
    missed = by_class.never_predicted(predictions, data.num_classes)
    return tuple(data.class_names[label] for label in missed)


def _checkpoint(dataset: DatasetRef, settings: TrainingSettings, seed: int) -> Path:
    """Where the state of this very training is kept while it lasts."""
    what = f"{dataset.sha256} {seed} {settings.model_dump_json()} {CHECKPOINT_VERSION}"
    return CHECKPOINTS / f"{sha256_of(what.encode())[:16]}.npz"


def _note(metrics: EpochMetrics) -> str:
    names = {
        "loss": "loss {:.4f}",
        "val_accuracy": "validation {:.2%}",
        "val_attacked_accuracy": "attacked {:.2%}",
        "val_certified_accuracy": "certified {:.2%}",
    }
    return " · ".join(text.format(metrics[name]) for name, text in names.items() if name in metrics)


def load_classifier(model: ArtifactRef, data: Dataset, batch_size: int = 1000) -> Attackable:
    """The model from its file, checked by digest, as it answers what the data ask."""
    from tasks.core.models.loading import load_artifact
    from tasks.core.models.network_classifier import NetworkClassifier
    from tasks.core.models.runtimes import Classifier
    from tasks.core.models.tolerance import answering

    loaded = answering(load_artifact(model), data)
    if isinstance(loaded.runtime, Classifier):
        return loaded.runtime.batched(batch_size)
    return NetworkClassifier(loaded.runtime, loaded.network, batch_size)
