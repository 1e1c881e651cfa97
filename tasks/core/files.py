"""Files that are either whole or absent, and references to them by content."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import CertiflowError


class ArtifactRef(BaseModel):
    """A file by its path and the SHA-256 of its content; what tasks hand to each other."""

    model_config = ConfigDict(frozen=True)

    path: Path
    sha256: str

    @classmethod
    def to(cls, path: Path) -> ArtifactRef:
        """A reference to the file as it is now."""
        return cls(path=path, sha256=sha256_of(path.read_bytes()))

    def verified_path(self) -> Path:
        """The path; raises `CertiflowError` when the content is not what was referred to."""
        found = sha256_of(self.path.read_bytes()) if self.path.is_file() else "no file"
        if found != self.sha256:
            raise CertiflowError(
                f"{self.path}: expected SHA-256 {self.sha256}, found {found}; run the flow again"
            )
        return self.path


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, moved into place when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def temporary_folder(prefix: str) -> Path:
    """A new folder that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
