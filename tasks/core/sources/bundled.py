"""Data that come with scikit-learn: no file is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.data.datasets import DataCard, Dataset, Extent
from tasks.core.data.pinned_files import RemoteFile
from tasks.core.properties.perturbation import Scale

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Digits:
    """1,797 digits of 8x8 pixels, a fifth for testing."""

    files: tuple[RemoteFile, ...] = ()
    extent = Extent((8, 8), 10, 360)
    class_names = tuple("0123456789")
    is_table = False
    card = DataCard(
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, "
        "doi 10.24432/C50P49",
    )

    def read(self, name: str, folder: Path, scale: Scale, most_changes: int) -> Dataset:
        """Always the same split; pixels move alike, whatever the scale."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch = load_digits()
        images = bunch.images.astype(np.float32) / np.float32(16)
        labels = bunch.target.astype(np.int64)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
        )
        return Dataset.of_images(
            name,
            (images[train], labels[train]),
            (images[test], labels[test]),
            self.class_names,
            card=self.card,
        )


def breast_cancer() -> pd.DataFrame:
    """569 rows of 30 measurements and the `target`: 0 malignant, 1 benign."""
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(as_frame=True).frame
