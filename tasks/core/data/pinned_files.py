"""Files whose content is known beforehand, and where each is to be had."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.core.errors import CertiflowError
from tasks.core.files import GZIP_MAGIC, decompressed, sha256_of


class CheckedFile(Protocol):
    """A file whose content is known beforehand."""

    @property
    def name(self) -> str:
        """The file's name in the cache."""

    def read(self, path: Path, /) -> object:
        """The content of the file at `path`; raises `CertiflowError` when it is another."""


@dataclass(frozen=True)
class RemoteFile:
    """A file with its path on a mirror, and its public addresses, tried in order."""

    file: CheckedFile
    mirror_path: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class PinnedFile:
    """A file and the SHA-256 of its bytes."""

    name: str
    sha256: str

    def read(self, path: Path) -> bytes:
        """The bytes; raises `CertiflowError` when they are others."""
        content = path.read_bytes()
        check_digest(path, "SHA-256", self.sha256, content)
        return content


@dataclass(frozen=True)
class PinnedText:
    """A file, gzipped or plain, and the size and SHA-256 of what it holds."""

    name: str
    size: int
    sha256: str

    def read(self, path: Path) -> bytes:
        """The decompressed bytes; raises `CertiflowError` when they are others."""
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = decompressed(path, content, self.size, f"SHA-256 {self.sha256}")
        check_digest(path, "SHA-256", self.sha256, content)
        return content


def check_digest(path: Path, algorithm: str, expected: str, content: bytes) -> None:
    """Raises `CertiflowError` when the content, of the file at `path`, has another digest."""
    if algorithm == "SHA-256":
        found = sha256_of(content)
    else:
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise CertiflowError(f"{path}: expected {algorithm} {expected}, found {found}")
