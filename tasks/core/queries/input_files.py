"""Files that workers read, here or on other machines, as they were when they were asked about."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import CertiflowError
from tasks.core.files import is_packed, sha256_of, unpacked


@dataclass(frozen=True)
class InputFile:
    """A file, `path` absolute, by what it held when it was asked about."""

    path: Path
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """The file as it is now; raises `CertiflowError` when it cannot be read."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CertiflowError(f"{path}: {error.strerror}; give the path of a file") from error
        return cls(path.absolute(), sha256_of(content), len(content))

    def content(self) -> bytes:
        """What it held, and still holds: else `CertiflowError`, since the verdict is of that."""
        try:
            content = self.path.read_bytes()
        except OSError:
            content = b""
        if sha256_of(content) != self.sha256:
            raise CertiflowError(f"{self.path}: changed since it was asked about; ask again")
        return content

    @contextmanager
    def opened(self, content: bytes | None) -> Iterator[Path]:
        """The file itself or, where its content was sent or is packed, a copy, for the block.

        The file is what it was before and after the block, which reads it by itself.
        """
        packed = is_packed(self.path)
        if content is None and not packed:
            self.content()
            yield self.path
            self.content()
            return
        content = self.content() if content is None else content
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / (self.path.stem if packed else self.path.name)
            copy.write_bytes(unpacked(self.path, content) if packed else content)
            try:
                yield copy
            except CertiflowError as error:
                raise CertiflowError(str(error).replace(str(copy), str(self.path))) from error
