"""A data set of MedMNIST v2 (Yang et al. 2023): one `.npz` file with three parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.core.data.pinned_files import check_digest
from tasks.core.errors import CertiflowError
from tasks.core.sources.npz import Array, read_arrays


@dataclass(frozen=True)
class MedicalFile:
    """The publisher's file by its MD5, or any other that has the same arrays by their SHA-256.

    `shapes` and `sha256` are by array.
    """

    name: str
    md5: str
    shapes: Mapping[str, tuple[int, ...]]
    sha256: Mapping[str, str]

    @property
    def files(self) -> tuple[MedicalFile, ...]:
        return (self,)

    def read(self, path: Path) -> dict[str, Array]:
        """The arrays, of bytes; raises `CertiflowError` when they are others."""
        arrays = read_arrays(path, list(self.shapes))
        for name, shape in self.shapes.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.uint8:
                raise CertiflowError(
                    f"{path}: {name} is {arrays[name].dtype} of shape {arrays[name].shape}: "
                    f"expected uint8 of {shape}"
                )
        try:
            check_digest(path, "MD5", self.md5, path.read_bytes())
        except CertiflowError as published:
            try:
                for name, sha256 in self.sha256.items():
                    check_digest(path, "SHA-256", sha256, arrays[name].tobytes())
            except CertiflowError as error:
                raise CertiflowError(f"{published}; nor has {name} SHA-256 {sha256}") from error
        return arrays

    def arrays(self, folder: Path) -> tuple[Array, ...]:
        """Training images and labels, those for validation among them; test images and labels."""
        found = self.read(folder / self.name)
        images, labels = (
            np.concatenate([found[f"train_{part}"], found[f"val_{part}"]])
            for part in ("images", "labels")
        )
        return images, labels.ravel(), found["test_images"], found["test_labels"].ravel()
