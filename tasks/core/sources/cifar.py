"""CIFAR-10's binary form: six files of records in one archive, without pickles.

Krizhevsky 2009; a record is one label byte and 32 x 32 pixels, channel after channel.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.data.pinned_files import PinnedFile
from tasks.core.errors import CertiflowError

FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"{FOLDER}/data_batch_{number}.bin" for number in range(1, 6))
TEST = f"{FOLDER}/test_batch.bin"
SIDE, CHANNELS = 32, 3
RECORD_BYTES = 1 + CHANNELS * SIDE * SIDE


@dataclass(frozen=True)
class CifarArchive:
    """The gzipped tar archive by its SHA-256, with so many records in each of its files."""

    name: str
    sha256: str
    records: int = 10_000

    @property
    def files(self) -> tuple[CifarArchive, ...]:
        return (self,)

    def read(self, path: Path) -> dict[str, bytes]:
        """The six files, read by name and size; nothing is unpacked to the disk.

        Raises:
            CertiflowError: another archive, or one that lacks a file.
        """
        packed = PinnedFile(self.name, self.sha256).read(path)
        found = dict[str, bytes]()
        try:
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
                for member in archive:
                    stream = archive.extractfile(member) if self._is_wanted(member) else None
                    if stream is not None:
                        found[member.name] = stream.read()
        except (OSError, EOFError, tarfile.TarError) as error:
            raise CertiflowError(f"{path}: not a whole tar.gz archive ({error})") from error
        missing = sorted({*TRAIN, TEST} - found.keys())
        if missing:
            raise CertiflowError(
                f"{path}: lacks {', '.join(missing)} of {self.records * RECORD_BYTES} bytes"
            )
        return found

    def arrays(self, folder: Path) -> tuple[NDArray[np.uint8], ...]:
        """Training images, (n, 32, 32, 3), and labels, test images and labels."""
        found = self.read(folder / self.name)
        train = _decoded(b"".join(found[name] for name in TRAIN))
        return (*train, *_decoded(found[TEST]))

    def _is_wanted(self, member: tarfile.TarInfo) -> bool:
        whole = member.isreg() and member.size == self.records * RECORD_BYTES
        return whole and member.name in {*TRAIN, TEST}


def _decoded(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    channels_first = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
    return channels_first.transpose(0, 2, 3, 1), records[:, 0]
