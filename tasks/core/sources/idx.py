"""Images in IDX files (LeCun's format), as MNIST and its successors are published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.data.pinned_files import check_digest
from tasks.core.errors import CertiflowError
from tasks.core.files import decompressed


@dataclass(frozen=True)
class IdxFile:
    """A gzipped IDX file and what its content must be.

    `sha256` pins the decompressed content, so any recompression passes and any change fails;
    `gzip_md5` is for publishers who give only that, of the compressed file.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str | None = None
    gzip_md5: str | None = None

    @property
    def content_size(self) -> int:
        return 4 + 4 * len(self.shape) + int(np.prod(self.shape))

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The array in the gzipped file; raises `CertiflowError` on any other content."""
        packed = path.read_bytes()
        expected = f"SHA-256 {self.sha256}" if self.sha256 else f"gzip MD5 {self.gzip_md5}"
        content = decompressed(path, packed, self.content_size, expected)
        if self.gzip_md5 is not None:
            check_digest(path, "MD5", self.gzip_md5, packed)
        if self.sha256 is not None:
            check_digest(path, "SHA-256", self.sha256, content)
        header = bytes([0, 0, 8, len(self.shape)]) + np.array(self.shape, dtype=">u4").tobytes()
        if not content.startswith(header) or len(content) != self.content_size:
            raise CertiflowError(
                f"{path}: expected an IDX file of bytes with shape {self.shape}, "
                f"found {len(content)} bytes that start with {content[: len(header)].hex()}"
            )
        return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(self.shape)


@dataclass(frozen=True)
class IdxFiles:
    """Four files: images and labels, for training and for testing."""

    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile

    @property
    def files(self) -> tuple[IdxFile, ...]:
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)

    def arrays(self, folder: Path) -> tuple[NDArray[np.uint8], ...]:
        """Training images and labels, test images and labels."""
        return tuple(file.read(folder / file.name) for file in self.files)
