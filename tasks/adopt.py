"""The stage that takes in a model trained elsewhere, in the place of training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.evidence import by_class
from tasks.core.evidence.errors import error_measures
from tasks.core.files import ArtifactRef, written_atomically
from tasks.data import DatasetRef, load
from tasks.tracking import Run, RunRef
from tasks.train import ModelRef, measured

if TYPE_CHECKING:
    from tasks.core.networks.network import ReluNetwork


@task(name="adopt", cache_policy=NO_CACHE)
def adopt(dataset: DatasetRef, file: Path, name: str, run: RunRef) -> ModelRef:
    """The model in a Keras or ONNX file, held against the data, measured and logged.

    Raises:
        CertiflowError: it cannot be read or verified, or does not fit the data.
    """
    from tasks.core.models import loading
    from tasks.core.models.tolerance import ToleranceRuntime, answering

    data, log = load(dataset), Run(run)
    with console.stage("model", 2) as progress:
        loaded = loading.load(file)
        runtime = answering(loaded, data).runtime
        path = run.folder / f"model{file.suffix.lower()}"
        with written_atomically(path) as temporary:
            shutil.copyfile(file, temporary)
        artifact = ArtifactRef.to(path)
        progress.advance()
        shaped = data.test_inputs.reshape(-1, *runtime.input_shape)
        logits = runtime.logits(shaped)
        if isinstance(runtime, ToleranceRuntime):
            others = error_measures(runtime.excess(shaped))
        else:
            others = by_class.measures(data.test_labels, logits, data.positive)
        clean = measured(data, logits, others, log)
        log.metrics({"train/parameters": num_weights(loaded.network)})
        log.tags({"model.sha256": artifact.sha256})
        fed = data.test_inputs.reshape(len(shaped), -1)[:1, : loaded.network.num_inputs]
        model_id = log.model_file(path, fed.reshape(1, *loaded.input_shape))
        progress.advance(note=f"{name}, clean accuracy {clean.accuracy:.2%}")
    return ModelRef(
        file=artifact, model_id=model_id, architecture=name, clean=clean, trained_here=False
    )


def num_weights(network: ReluNetwork) -> int:
    """Weights and biases that are not zero, of the network as it is verified."""
    return sum(layer.matrix.sparse().nnz + (layer.bias != 0).sum() for layer in network.layers)
