"""The whole state of a training after an epoch, in one file without pickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import CertiflowError
from tasks.core.files import written_atomically

Arrays = list[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """After `len(history)` epochs: weights, the optimiser's variables, the best epoch's weights.

    Epochs are counted from 1; `best_epoch` 0 means that there is none yet.
    """

    history: list[Mapping[str, float]]
    weights: Arrays
    optimizer: Arrays
    best_epoch: int
    best_weights: Arrays

    def save(self, path: Path) -> None:
        """Written whole or not at all.

        Raises:
            CertiflowError: the folder cannot be written.
        """
        groups = {"weights": self.weights, "optimizer": self.optimizer, "best": self.best_weights}
        arrays = {
            f"{name}_{index}": array
            for name, group in groups.items()
            for index, array in enumerate(group)
        }
        about = {
            "history": [dict(metrics) for metrics in self.history],
            "best_epoch": self.best_epoch,
            "sizes": {name: len(group) for name, group in groups.items()},
        }
        try:
            with written_atomically(path) as temporary:
                np.savez(temporary, allow_pickle=False, about=json.dumps(about), **arrays)
        except OSError as error:
            raise CertiflowError(
                f"{path}: {error.strerror}: the training's state cannot be kept; free some space, "
                "or make the folder writable"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint | None:
        """None where there is no such file.

        Raises:
            CertiflowError: it is no checkpoint.
        """
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                groups = {
                    name: [arrays[f"{name}_{index}"] for index in range(size)]
                    for name, size in about["sizes"].items()
                }
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CertiflowError(
                f"{path}: not a readable checkpoint ({error}): delete it, and the training starts "
                "from its first epoch"
            ) from error
        return cls(
            about["history"],
            groups["weights"],
            groups["optimizer"],
            about["best_epoch"],
            groups["best"],
        )
