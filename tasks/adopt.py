"""The stage that takes in a model trained elsewhere, in the place of training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.files import ArtifactRef, written_atomically
from tasks.core.models.inspection import Ends, check_fit
from tasks.data import DatasetRef, load
from tasks.tracking import Run, RunRef
from tasks.train import ModelRef, load_classifier, measured

if TYPE_CHECKING:
    from tasks.core.networks.network import ReluNetwork


@task(name="adopt", cache_policy=NO_CACHE)
def adopt(dataset: DatasetRef, file: Path, name: str, run: RunRef) -> ModelRef:
    """The model in a Keras or ONNX file, held against the data, measured and logged.

    Raises:
        CertiflowError: it cannot be read or verified, or does not fit the data.
    """
    from tasks.core.models import loading

    data, log = load(dataset), Run(run)
    with console.stage("model", 2) as progress:
        loaded = loading.load(file)
        network = loaded.network
        check_fit(Ends(network.num_inputs, network.num_outputs), data.name, data.extent)
        path = run.folder / f"model{file.suffix.lower()}"
        with written_atomically(path) as temporary:
            shutil.copyfile(file, temporary)
        artifact = ArtifactRef.to(path)
        progress.advance()
        logits = load_classifier(artifact).logits(data.test_inputs)
        clean = measured(data, logits, log)
        log.metrics({"train/parameters": num_weights(network)})
        log.tags({"model.sha256": artifact.sha256})
        shaped = data.test_inputs[:1].reshape(1, *loaded.input_shape)
        model_id = log.model_file(path, shaped)
        progress.advance(note=f"{name}, clean accuracy {clean.accuracy:.2%}")
    return ModelRef(
        file=artifact, model_id=model_id, architecture=name, clean=clean, trained_here=False
    )


def num_weights(network: ReluNetwork) -> int:
    """Weights and biases that are not zero, of the network as it is verified."""
    return sum(layer.matrix.sparse().nnz + (layer.bias != 0).sum() for layer in network.layers)
