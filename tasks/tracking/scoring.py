"""A run's guard files as an MLflow model: guarded columns from whatever serves MLflow's models.

MLflow finds `_load_pyfunc` by the name in the file `MLmodel`; there is no pickle. What intervals
leave open is flagged: the ladder needs a service's processes. The package does not import this
module itself: commands that only read MLflow would load ONNX with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import ParamSchema, ParamSpec

from tasks.core.arrays import Float32Array
from tasks.core.errors import CertiflowError
from tasks.core.guard import bundle
from tasks.core.guard.answers import BUDGET, CERTIFICATE, Answer, Decision, graded
from tasks.core.guard.bundle import Bundle
from tasks.core.guard.contract import Asked

FILE = "MLmodel"


def describe_scoring(folder: Path, epsilon: float) -> Path:
    """Writes what makes the folder of a bundle an MLflow model; epsilon where none is asked for."""
    params = ParamSchema([ParamSpec("epsilon", "double", epsilon)])
    model = Model(signature=ModelSignature(params=params))
    pyfunc.add_to_model(model, loader_module=__name__)
    model.save(str(folder / FILE))
    return folder / FILE


def _load_pyfunc(folder: str) -> GuardedModel:
    """Called by `mlflow.pyfunc.load_model`."""
    return GuardedModel(bundle.read(Path(folder)))


class GuardedModel:
    """Labels with a proof or a flag, by the interval certificate alone."""

    def __init__(self, files: Bundle) -> None:
        self._files = files
        self._contract = files.description.contract

    def predict(self, data: Any, params: dict[str, Any]) -> pd.DataFrame:
        """The guarded columns, a row for each input: an array, or a table's features by name.

        `params["epsilon"]`: of the proof.

        Raises:
            MlflowException: a rule is broken, which it names in one line.
        """
        epsilon = params["epsilon"]
        if not 0 < epsilon <= 1:
            raise MlflowException(f"epsilon is {epsilon}: expected above 0, at most 1", BAD_REQUEST)
        try:
            asked = self._asked(data)
        except CertiflowError as error:
            raise MlflowException(str(error), BAD_REQUEST) from error
        names = self._files.description.class_names
        frame = pd.DataFrame([each.row(names) for each in self._answers(asked.inputs, epsilon)])
        return frame.assign(completed=list(asked.completed)) if any(asked.completed) else frame

    def _asked(self, data: Any) -> Asked:
        if not isinstance(data, pd.DataFrame):
            return self._contract.inputs(data)
        if self._contract.domain.is_table:
            return self._contract.rows(data.to_dict("records"))
        return self._contract.inputs(data.to_numpy())

    def _answers(self, inputs: Float32Array, epsilon: float) -> list[Answer]:
        radii = graded(epsilon)
        certified = self._files.certificate.certified(inputs, radii)
        margins = certified.margins[:, radii.index(epsilon)]
        return [
            Answer(label, label, Decision.ACCEPTED, radius, CERTIFICATE, margin)
            if margin > 0
            else Answer(label, label, Decision.FLAGGED, radius, BUDGET, margin)
            for label, radius, margin in zip(
                certified.labels.tolist(),
                certified.radii(radii).tolist(),
                margins.tolist(),
                strict=True,
            )
        ]
