"""Images by name: of bytes, in files of one of the formats that they are published in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tasks.core.arrays import Float32Array
from tasks.core.data.datasets import DataCard, Dataset, Extent
from tasks.core.data.pinned_files import CheckedFile, RemoteFile
from tasks.core.properties.perturbation import Scale
from tasks.core.sources.npz import Array


class ImageFiles(Protocol):
    """Files of one format."""

    @property
    def files(self) -> Sequence[CheckedFile]:
        """Each with its content's digest."""

    def arrays(self, folder: Path) -> tuple[Array, ...]:
        """Training images, bytes, and labels, test images and labels.

        Raises `CertiflowError` when a file in `folder` is not what it must be.
        """


@dataclass(frozen=True)
class ImageSource:
    """Images, and where each of their files is to be had."""

    content: ImageFiles
    files: tuple[RemoteFile, ...]
    extent: Extent
    card: DataCard
    class_names: tuple[str, ...]
    is_table = False

    def read(self, name: str, folder: Path, scale: Scale, most_changes: int) -> Dataset:
        """From the files in `folder`; pixels move alike, whatever the scale."""
        train_images, train_labels, test_images, test_labels = self.content.arrays(folder)
        return Dataset.of_images(
            name,
            (_pixels(train_images), train_labels.astype(np.int64)),
            (_pixels(test_images), test_labels.astype(np.int64)),
            self.class_names,
            self.extent.positive,
            self.card,
        )


def in_folders(content: ImageFiles, mirror: str, folders: Sequence[str]) -> tuple[RemoteFile, ...]:
    """Files that lie under their own names in a mirror's folder and in each of the public ones."""
    return tuple(
        RemoteFile(
            file, f"{mirror}/{file.name}", tuple(f"{folder}/{file.name}" for folder in folders)
        )
        for file in content.files
    )


def _pixels(images: Array) -> Float32Array:
    return images.astype(np.float32) / np.float32(255)
