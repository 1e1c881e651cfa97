"""The stage that writes what a version is served by behind its proofs."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.guard import bundle
from tasks.data import DatasetRef, load
from tasks.settings import Settings
from tasks.tracking import GUARD_FOLDER, GUARD_REFUSED, Run, RunRef
from tasks.tracking.scoring import describe_scoring
from tasks.train import ModelRef


@task(name="guard files", cache_policy=NO_CACHE)
def guard_files(dataset: DatasetRef, model: ModelRef, settings: Settings, run: RunRef) -> None:
    """The certificate as an ONNX graph, the network, its reach on clean data, an MLflow model."""
    from tasks.core.models.loading import load_artifact

    log, data = Run(run), load(dataset)
    epsilons = settings.verification.epsilons
    with console.stage("guard", 1) as progress:
        try:
            files = bundle.write(
                run.folder / GUARD_FOLDER,
                load_artifact(model.file).network,
                data,
                epsilons,
                settings.seed,
            )
        except CertiflowError as error:
            log.tags({GUARD_REFUSED: error})
            progress.advance(note=f"not to be served by certiflow guard: {error}")
            return
        scoring = describe_scoring(run.folder / GUARD_FOLDER, settings.reference_epsilon)
        log.files(GUARD_FOLDER, *files, scoring)
        clean = bundle.read(run.folder / GUARD_FOLDER).clean
        log.per_epsilon("guard/accepted", {each: clean.accepted(each) for each in epsilons})
        ends = dict.fromkeys((min(epsilons), max(epsilons)))  # a line has no room for all
        said = " to ".join(f"{clean.accepted(each):.1%} at {each:g}" for each in ends)
        progress.advance(note=f"of clean inputs intervals accept {said}")
