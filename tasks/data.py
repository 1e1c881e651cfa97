"""The download stage, and loading what it brought."""

from __future__ import annotations

from functools import cache
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff
from pydantic import BaseModel, ConfigDict

from tasks import console
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.sources.download import DatasetUnavailableError, fetch
from tasks.settings import DataSettings


class DatasetRef(BaseModel):
    """A downloaded dataset by name, what was asked for, and its content."""

    model_config = ConfigDict(frozen=True)

    name: str
    settings: DataSettings
    sha256: str
    test_size: int

    @property
    def source(self) -> str:
        """What `data.dataset` said: the name, or a file."""
        return self.settings.dataset


def _may_help(task: Any, task_run: Any, state: Any) -> bool:
    """Retry only what another attempt may mend: no answer, a server's error, a lost connection."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, DatasetUnavailableError) and error.transient


@task(
    name="download",
    task_run_name="download {settings.dataset}",
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=1),
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,
)
def download(settings: DataSettings) -> DatasetRef:
    """Brings a dataset into the cache and checks its content; see `fetch` for the errors."""
    settings = settings.model_copy(update={"cache": settings.cache.absolute()})
    with console.stage("download", None) as progress:

        def on_progress(file: str, done: int, total: int | None) -> None:
            progress.update(done, total, file)

        fetch(settings.dataset, settings.cache, on_progress=on_progress, on_warning=console.warn)
        data = load_checked(settings)
        count = len(data.train_labels) + len(data.test_labels)
        progress.update(count, count, f"{data.name}, {len(data.test_labels)} of them for testing")
    return DatasetRef(
        name=data.name, settings=settings, sha256=data.sha256, test_size=len(data.test_labels)
    )


def load(ref: DatasetRef) -> Dataset:
    """The dataset; raises `CertiflowError` when its content is no longer what was downloaded."""
    data = load_checked(ref.settings)
    if data.sha256 != ref.sha256:
        raise CertiflowError(
            f"{ref.name} in {ref.settings.cache}: expected content {ref.sha256}, found "
            f"{data.sha256}; run the flow again"
        )
    return data


@cache
def load_checked(settings: DataSettings) -> Dataset:
    """Files are read and hashed once in a process, not once a stage."""
    return settings.load()
