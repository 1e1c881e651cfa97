"""An empty project folder for flows that run in the tests' own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from flows.configuration import load_settings
from tasks.settings import Settings

CONF = Path(__file__).parents[1] / "conf"


@contextmanager
def flow_project(folder: Path) -> Iterator[Path]:
    """The process works in `folder`, with an MLflow store of its own there.

    The store is named by its whole path: MLflow keeps the stores that a process has opened by name.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        try:
            yield folder
        finally:
            mlflow.set_tracking_uri(None)


def smoke(*overrides: str) -> Settings:
    """The settings in conf/smoke.yaml, with overrides."""
    return load_settings(CONF / "smoke.yaml", overrides)[0]
