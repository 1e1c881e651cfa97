"""The training stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from tasks import console
from tasks.core.architectures import describe
from tasks.core.errors import CertiflowError
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef, load
from tasks.settings import TrainingSettings
from tasks.tracking import Run, RunRef

if TYPE_CHECKING:
    from tasks.core.attacks import Classifier
    from tasks.core.training import EpochMetrics


class ModelRef(BaseModel):
    """A trained model's file, its MLflow id and its accuracy on the whole test set."""

    model_config = ConfigDict(frozen=True)

    file: ArtifactRef
    model_id: str
    architecture: str
    clean_accuracy: float


@task(name="train", cache_policy=NO_CACHE)
def train(dataset: DatasetRef, settings: TrainingSettings, seed: int, run: RunRef) -> ModelRef:
    """Trains the network, logs every epoch and the model."""
    from time import monotonic

    from tasks.core import training
    from tasks.core.attacks import Classifier

    data, log, started = load(dataset), Run(run), monotonic()
    with console.stage("train", settings.epochs) as progress:

        def on_epoch(epoch: int, metrics: EpochMetrics) -> None:
            log.metrics({f"train/{name}": value for name, value in metrics.items()}, step=epoch)
            progress.advance(note=" · ".join(f"{k} {v:.4f}" for k, v in metrics.items()))

        trained = training.train(
            data,
            architecture=settings.architecture,
            hidden=settings.hidden,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            validation_fraction=settings.validation_fraction,
            restore_best_epoch=settings.restore_best_epoch,
            seed=seed,
            on_epoch=on_epoch,
        )
    seconds = monotonic() - started
    predictions = Classifier(trained.model).predictions(data.test_images)
    clean_accuracy = float((predictions == data.test_labels).mean())
    log.metrics(
        {
            "clean_accuracy": clean_accuracy,
            "train/seconds": seconds,
            "train/parameters": trained.model.count_params(),
        }
    )
    path = run.folder / "model.keras"
    with written_atomically(path) as temporary:
        trained.model.save(temporary)
    file = ArtifactRef.to(path)
    log.tags({"model.sha256": file.sha256})
    model_id = log.model(trained.model, data.test_images[:1])
    return ModelRef(
        file=file,
        model_id=model_id,
        architecture=describe(settings.architecture, settings.hidden),
        clean_accuracy=clean_accuracy,
    )


def load_classifier(model: ModelRef, batch_size: int = 1000) -> Classifier:
    """The model from its file, checked by digest, without compiled training state or lambdas."""
    import keras

    from tasks.core.attacks import Classifier

    path = model.file.verified_path()
    loaded = keras.models.load_model(path, compile=False, safe_mode=True)
    if not isinstance(loaded, keras.Sequential):
        raise CertiflowError(f"{path}: expected a keras.Sequential, found {type(loaded).__name__}")
    return Classifier(loaded, batch_size)
