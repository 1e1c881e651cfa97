"""What is kept of a model's training data: its profile, in the run's folder and in MLflow."""

from __future__ import annotations

from pydantic import ValidationError

from tasks.core.data import drift
from tasks.core.data.completion import NO_COMPLETIONS, Completions
from tasks.core.data.datasets import Dataset
from tasks.core.data.drift import DataProfile
from tasks.core.errors import CertiflowError
from tasks.core.files import written_atomically
from tasks.tracking import Run, RunRecord, read_run, run_of_model

PROFILE = "tables/data_profile.json"


def write_profile(data: Dataset, run: Run) -> None:
    """Logs the profile of the training data, for later data and for rows with empty cells."""
    path = run.ref.folder / PROFILE
    with written_atomically(path) as temporary:
        temporary.write_text(profile_of(data).model_dump_json())
    run.files("tables", path)


def profile_of(data: Dataset, like: DataProfile | None = None) -> DataProfile:
    """The profile of the training data, in the bins of `like` where they can be compared."""
    if like is not None and like.shape != data.input_shape:
        like = None  # they cannot be compared, which is said
    found = drift.profile(data.train_inputs, data.train_labels, data.domain, like)
    return found.model_copy(update={"completions": dict(data.completions)})


def recorded_profile(run: RunRecord) -> DataProfile | None:
    """The profile that a run has; None where it has none.

    Raises:
        CertiflowError: it cannot be read.
    """
    path = run.artifact(PROFILE)
    if path is None:
        return None
    try:
        return DataProfile.model_validate_json(path.read_text())
    except ValidationError as error:
        raise CertiflowError(
            f"{PROFILE} of run {run.name} cannot be read ({error.error_count()} errors): take a "
            "model of another run, or train again"
        ) from error


def completions_of(model: str) -> Completions:
    """What stood for empty cells when the model behind an MLflow URI was trained, if known.

    Raises:
        CertiflowError: the store has no such model, or its run's profile cannot be read.
    """
    run_id = run_of_model(model)
    profile = None if run_id is None else recorded_profile(read_run(run_id))
    return NO_COMPLETIONS if profile is None else profile.completions
