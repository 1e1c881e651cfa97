"""Where the IDX datasets come from, and what their files must hold."""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import CertiflowError


@dataclass(frozen=True)
class IdxFile:
    """A gzipped IDX file (LeCun's format) and what its content must be.

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
        content = self._decompress(path, packed)
        for expected, algorithm, data in (
            (self.gzip_md5, "MD5", packed),
            (self.sha256, "SHA-256", content),
        ):
            if expected is None:
                continue
            found = hashlib.new(algorithm.replace("-", ""), data, usedforsecurity=False).hexdigest()
            if found != expected:
                raise CertiflowError(f"{path}: expected {algorithm} {expected}, found {found}")
        header = bytes([0, 0, 8, len(self.shape)]) + np.array(self.shape, dtype=">u4").tobytes()
        if not content.startswith(header) or len(content) != self.content_size:
            raise CertiflowError(
                f"{path}: expected an IDX file of bytes with shape {self.shape}, "
                f"found {len(content)} bytes that start with {content[: len(header)].hex()}"
            )
        return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(self.shape)

    def _decompress(self, path: Path, packed: bytes) -> bytes:
        try:
            with gzip.open(io.BytesIO(packed)) as stream:
                return stream.read(self.content_size + 1)  # never more: an archive may be a bomb
        except (OSError, EOFError) as error:
            expected = f"SHA-256 {self.sha256}" if self.sha256 else f"gzip MD5 {self.gzip_md5}"
            raise CertiflowError(
                f"{path}: truncated or not gzip ({error}); expected {expected}"
            ) from error


@dataclass(frozen=True)
class IdxSource:
    """Four IDX files and the public mirrors that hold them, tried in order."""

    mirrors: tuple[str, ...]
    train_images: IdxFile
    train_labels: IdxFile
    test_images: IdxFile
    test_labels: IdxFile

    @property
    def files(self) -> tuple[IdxFile, ...]:
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)


SOURCES = {
    "mnist": IdxSource(
        mirrors=(
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://ossci-datasets.s3.amazonaws.com/mnist",
        ),
        train_images=IdxFile(
            "train-images-idx3-ubyte.gz",
            (60_000, 28, 28),
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        train_labels=IdxFile(
            "train-labels-idx1-ubyte.gz",
            (60_000,),
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        test_images=IdxFile(
            "t10k-images-idx3-ubyte.gz",
            (10_000, 28, 28),
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        test_labels=IdxFile(
            "t10k-labels-idx1-ubyte.gz",
            (10_000,),
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": IdxSource(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        train_images=IdxFile(
            "train-images-idx3-ubyte.gz",
            (60_000, 28, 28),
            gzip_md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        train_labels=IdxFile(
            "train-labels-idx1-ubyte.gz", (60_000,), gzip_md5="25c81989df183df01b3e8a0aad5dffbe"
        ),
        test_images=IdxFile(
            "t10k-images-idx3-ubyte.gz",
            (10_000, 28, 28),
            gzip_md5="bef4ecab320f06d8554ea6380940ec79",
        ),
        test_labels=IdxFile(
            "t10k-labels-idx1-ubyte.gz", (10_000,), gzip_md5="bb300cfdad3c16e7a12a480ee83cd310"
        ),
    ),
}
